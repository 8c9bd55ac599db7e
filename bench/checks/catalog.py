"""All checks, in the order in which they are shown. To add a check, add it to `CHECKS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from gauntlet.bench.checks import effort, outcomes, strength
from gauntlet.bench.checks import masked_gradients as gradients
from gauntlet.bench.checks import model_outputs as model
from gauntlet.bench.checks import planted_example as planted
from gauntlet.bench.checks.subject import Finding, Subject, not_applicable
from gauntlet.bench.models.parts.black_box import model_access
from gauntlet.leaderboard.results.record import Flag

CheckCost = Literal["cheap", "expensive"]
CheckSet = Literal["cheap", "all"]

AUTOATTACK = "Croce and Hein 2020 (AutoAttack's checks), arXiv 2003.01690"
CARLINI = "Carlini et al. 2019, arXiv 1902.06705"
PINTOR = "Pintor et al. 2022, arXiv 2106.09947"


@dataclass(frozen=True)
class Check:
    """A check: its name, which is also that of its flag, its rule in a line, its source, and its cost.

    `cheap` checks run for every pair of model and defense, on at most 64 samples (`randomised-model`: on all; of costly
    pipelines on 16, `gauntlet.bench.checks.subject.COSTLY`); `expensive`
    checks run attacks, and run with `--checks all` only.
    """

    name: str
    rule: str
    source: str
    cost: CheckCost
    run: Callable[[Subject], Finding]


CHECKS: tuple[Check, ...] = (
    Check(
        "eval-mode", "every module is in eval mode, outputs are finite numbers", "RobustBench", "cheap", model.eval_mode
    ),
    Check(
        "randomised-model",
        "5 passes over each batch give the same number of correct predictions, and logits within 1e-4 of the margins",
        AUTOATTACK,
        "cheap",
        model.randomised_model,
    ),
    Check("probabilities", "outputs are not distributions", AUTOATTACK, "cheap", model.probabilities),
    Check(
        "flat-logits",
        "the largest logit leads by 0.1 or more, for more than half of the samples",
        "this project",
        "cheap",
        model.flat_logits,
    ),
    Check("few-classes", "ratio losses need 3 classes, targeted ones 4", AUTOATTACK, "cheap", model.few_classes),
    Check(
        "unavailable-gradients",
        "the gradient can be computed, and has an entry that is not zero",
        PINTOR,
        "cheap",
        gradients.unavailable_gradients,
    ),
    Check(
        "zero-gradient",
        "at the attack's start the gradient of every loss is finite and not zero, for every sample",
        f"{AUTOATTACK}; ART",
        "cheap",
        gradients.zero_gradient,
    ),
    Check(
        "finite-differences",
        "autograd agrees with finite differences along random directions at some scale, and an attack can follow it",
        "this project",
        "cheap",
        gradients.finite_differences,
    ),
    Check(
        "optimisation-at-test-time",
        "the forward pass does not call autograd",
        AUTOATTACK,
        "cheap",
        gradients.optimisation_at_test_time,
    ),
    Check(
        "unstable-predictions",
        "mean relative change of the margin over 100 draws within ±4/255",
        PINTOR,
        "cheap",
        gradients.unstable_predictions,
    ),
    Check(
        "unbounded-attack",
        "with eps = the whole box every sample is broken",
        f"{CARLINI}; {PINTOR}",
        "expensive",
        strength.unbounded_attack,
    ),
    Check(
        "obfuscation",
        "PGD of 100 steps in the whole box leaves no more accuracy than chance",
        "Adversarial Robustness Toolbox",
        "expensive",
        strength.obfuscation,
    ),
    Check(
        "undefended-twin",
        "the attack breaks the model without its defense",
        CARLINI,
        "expensive",
        strength.undefended_twin,
    ),
    Check(
        "frozen-randomness",
        "the attack breaks the pipeline with its randomness frozen",
        CARLINI,
        "expensive",
        strength.frozen_randomness,
    ),
    Check(
        "planted-example",
        "the attack finds an adversarial example that is planted in the ball of each sample",
        "Zimmermann et al. 2022, arXiv 2206.13991",
        "expensive",
        planted.planted_example,
    ),
    Check(
        "converged", "twice the steps and another restart break no more samples", CARLINI, "expensive", effort.converged
    ),
    Check(
        "incomplete-optimisation",
        "the last 10 steps gain at most 5 % of the clean margin",
        PINTOR,
        "expensive",
        effort.incomplete_optimisation,
    ),
    Check(
        "random-noise",
        "10,000 random points in the ball break no sample that the attack left",
        CARLINI,
        "expensive",
        effort.random_noise,
    ),
    Check(
        "transfer-failure",
        "share of the undefended model's examples that get another label from the defended model",
        PINTOR,
        "expensive",
        strength.transfer_failure,
    ),
    Check(
        "silent-success",
        "a library's attack returns the adversarial example that it evaluated",
        PINTOR,
        "expensive",
        outcomes.silent_success,
    ),
    Check(
        "black-box-beats-white-box",
        "attacks without gradients break no sample that gradient attacks left",
        f"{AUTOATTACK}; {CARLINI}",
        "cheap",
        outcomes.black_box_beats_white_box,
    ),
    Check(
        "single-step-beats-iterative",
        "single-step attacks break no sample that iterative attacks left",
        CARLINI,
        "cheap",
        outcomes.single_step_beats_iterative,
    ),
    Check("rises-with-eps", "robust accuracy does not rise with eps", CARLINI, "cheap", outcomes.rises_with_eps),
    Check(
        "above-chance-at-grey",
        "at Linf 0.5 robust accuracy is at most the share of the most frequent class",
        CARLINI,
        "cheap",
        outcomes.above_chance_at_grey,
    ),
    Check(
        "invalid-candidates",
        "the attack proposes finite points in the box and the ball",
        "this project",
        "cheap",
        outcomes.invalid_candidates,
    ),
    Check(
        "8-bit-survival",
        "share of the adversarial examples that survive rounding to 8 bits",
        "this project",
        "cheap",
        outcomes.survival_of_rounding,
    ),
)


_GRADIENT_CHECKS = (
    "unavailable-gradients",
    "zero-gradient",
    "finite-differences",
    "optimisation-at-test-time",
    "unstable-predictions",
)


def run_checks(subject: Subject, which: CheckSet = "cheap") -> list[Finding]:
    """Run the checks, in the order of `CHECKS`; `cheap` leaves out expensive checks.

    Checks of results read `subject.row`, and do not apply without it.
    """
    return [run_check(check, subject) for check in CHECKS if which == "all" or check.cost == "cheap"]


def run_check(check: Check, subject: Subject) -> Finding:
    """Run a check. An exception becomes a finding, so that a failing check does not discard the attack's result."""
    if check.name in _GRADIENT_CHECKS and model_access(subject.pipeline) != "white-box":
        return not_applicable(check.name, "Only the model's outputs can be observed: no attack uses its gradients.")
    try:
        return check.run(subject)
    except Exception as error:
        return not_applicable(check.name, f"The check failed: {type(error).__name__}: {error}")


def flags(findings: Iterable[Finding]) -> tuple[Flag, ...]:
    """The flags of the findings, for the record."""
    return tuple(finding.flag for finding in findings if finding.flag is not None)
