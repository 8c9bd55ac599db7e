"""`check_rule`: whether a rule does what the solver expects, in sentences, and its strength beside PGD."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gauntlet.attacks.adapters.run_whole import Counting
from gauntlet.attacks.ops.norms import distance, limit
from gauntlet.attacks.ops.threat import Norm
from gauntlet.attacks.pgd import build as build_pgd
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.solver import Outcome, Task, Verification, solve
from gauntlet.attacks.views.guard import guarded
from gauntlet.bench.rule_checks.problems import KINDS, SAMPLES, Problem, problems
from gauntlet.bench.rule_checks.watched_rule import StateError, WatchedRule

_WHOLE = 256
_SMALLER = {7: SAMPLES, 1: 6}
"""Batch sizes, and the number of samples that are run in them: a single sample costs nearly as much as a batch."""
_TOLERANCE = 1e-6
"""Largest difference of a pixel between batch sizes, where all arithmetic is in float64."""


@dataclass(frozen=True)
class RuleReport:
    """The result of `check_rule`, as sentences; `str(report)` joins them."""

    rule: str
    properties: tuple[str, ...]
    """The properties that were checked, and hold."""
    strength: tuple[str, ...]
    """How many samples the rule breaks, beside PGD with the same number of steps and restarts."""

    def __str__(self) -> str:
        return "\n".join([self.rule, *self.properties, *self.strength])


def check_rule(rule: Rule[Any], norms: Sequence[Norm] = ("Linf",), *, seed: int = 0) -> RuleReport:
    """Run a rule on linear models and small networks, and check what the solver expects of it.

    A rule stays in the ball (unless `leaves_ball` or `minimum_norm` is set) and in the box [0, 1]. It gives a sample the same
    result at every batch size. It makes all passes through the oracle, which counts them. It is deterministic: its random
    numbers come from `oracle.draws`. It replaces tensors instead of changing them in place.

    `norms`: those of the attack's card. Each rule is run five times on 24 samples of two linear models and two networks, so
    give it small settings. The report also says how many samples it breaks, beside PGD with the same number of steps and
    restarts; on the linear models the optimum is known. Strength is not judged.

    Raises AssertionError with a sentence for each problem.
    """
    complaints = _of_settings(rule)
    trials = [_Trial(rule, problem, seed) for norm in norms for problem in problems(norm)]
    for trial in trials:
        trial.run(complaints)
    if complaints:
        raise AssertionError("\n".join([f"{rule!r} is not what the solver expects of a rule:", *complaints.values()]))
    strength = [line for norm in norms for line in _strength(rule, norm, trials)]
    return RuleReport(repr(rule), tuple(_properties(rule, trials)), tuple(strength))


def _of_settings(rule: Rule[Any]) -> dict[str, str]:
    """Complaints about the rule's class, by kind."""
    found = {}
    parameters = getattr(type(rule), "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        found["dataclass"] = (
            "It is not a frozen dataclass: write @dataclass(frozen=True, kw_only=True), so that its settings do not change and "
            "`repr` writes them into the key of stored results."
        )
    elif " at 0x" in repr(rule):
        found["repr"] = (
            f"Its repr, {rule!r}, has a memory address, which differs from run to run: it is part of the key of stored "
            "results, so let settings be numbers and text."
        )
    if isinstance(rule.version, bool) or not isinstance(rule.version, int):
        found["version"] = (
            f"Its version is {rule.version!r}: set a whole number, and increase it when the output changes."
        )
    return found


@dataclass
class _Trial:
    """The runs of a rule on a problem."""

    rule: Rule[Any]
    problem: Problem
    seed: int
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)
    pgd: list[Outcome] = dataclasses.field(default_factory=list)
    passes: int = 0
    """Forward and backward passes of the first run, counted at the model."""

    def run(self, complaints: dict[str, str]) -> None:
        """Add complaints, by kind; a kind that is known already is not added again."""
        try:
            self._run(complaints)
        except StateError as error:
            complaints.setdefault("state", str(error))
        except Exception as error:  # whatever the author's code raises
            complaints.setdefault("error", f"It raises {type(error).__name__} on {self.problem.name}: {error}")

    def _run(self, complaints: dict[str, str]) -> None:
        model = Counting(self.problem.model).eval()
        watched = WatchedRule(self.rule, complaints)
        self.outcomes, drew = _solve(watched, self.problem, model, _WHOLE, self.seed, generators=1)
        self.passes = model.forwards + model.backwards
        counted = sum(outcome.forwards + outcome.backwards for outcome in self.outcomes)
        if counted != self.passes:
            complaints.setdefault(
                "passes",
                f"The model made {self.passes:,} forward and backward passes and the oracle counted {counted:,.0f}: make every "
                "pass through `oracle.logits` or `oracle.gradient`.",
            )
        again, _ = _solve(self.rule, self.problem, self.problem.model, _WHOLE, self.seed, generators=2)
        differ = _differences(self.outcomes, again, 0.0)
        if drew:
            complaints.setdefault(
                "generator",
                "It draws from a global random generator: draw from `oracle.draws`, so that the result of a sample depends on "
                "nothing else that runs.",
            )
        elif differ:
            complaints.setdefault(
                "deterministic",
                f"Two runs with the same seed differ on {differ} of {SAMPLES} samples: draw random numbers from "
                "`oracle.draws`, and keep nothing on the rule between steps.",
            )
        if not (drew or differ):
            self._compare_batch_sizes(complaints)
        steps = {"steps": self.rule.budget, "restarts": self.rule.total_restarts}
        pgd = build_pgd(self.problem.threat, **steps)
        self.pgd, _ = _solve(pgd, self.problem, self.problem.model, _WHOLE, self.seed, generators=1)

    def _compare_batch_sizes(self, complaints: dict[str, str]) -> None:
        # In float64, where the rounding of another batch composition is far below what an attack decides by.
        exact = self.problem.in_float64()
        whole, _ = _solve(self.rule, exact, exact.model, _WHOLE, self.seed, generators=1)
        for batch_size, count in _SMALLER.items():
            some = exact.first(count)
            other, _ = _solve(self.rule, some, some.model, batch_size, self.seed, generators=1)
            differ = _differences(whole[:count], other, _TOLERANCE)
            if differ:
                complaints.setdefault(
                    "batch size",
                    f"The results of {differ} of {count} samples differ between batch sizes {_WHOLE} and {batch_size} on "
                    f"{self.problem.name}: a rule must not look at other slots.",
                )

    def broken(self, outcomes: Sequence[Outcome]) -> int:
        """Number of samples with an example inside the ball."""
        return int((_distances(self.problem, outcomes) <= limit(self.problem.threat)).sum())


def _solve(
    rule: Rule[Any], problem: Problem, model: nn.Module, batch_size: int, seed: int, *, generators: int
) -> tuple[list[Outcome], bool]:
    """Outcomes in the order of the samples, and whether a global random generator was used; those start from `generators`."""
    ids = [f"sample {number}" for number in range(len(problem.labels))]
    task = Task(problem.images.clone(), problem.labels, ids, problem.threat, seed, "check_rule")

    def verify(points: Tensor, samples: Tensor, attempt: Tensor) -> Verification:
        flat = points.flatten(1)
        valid = flat.isfinite().all(1) & (flat >= 0).all(1) & (flat <= 1).all(1)
        if not rule.minimum_norm:
            valid &= distance(points, problem.images[samples], problem.threat.norm) <= limit(problem.threat)
        wrong = problem.model(points).argmax(1) != problem.labels[samples]
        return Verification(success=valid & wrong, rejected=~valid, disagreement=torch.zeros_like(valid))

    with guarded(problem.model, generators):
        before = _generators()
        outcomes = list(solve(rule, model, task, verify, batch_size=batch_size, classes=problem.classes))
        drew = _generators() != before
    return sorted(outcomes, key=lambda outcome: outcome.sample), drew


def _generators() -> tuple[object, ...]:
    """The states of the global random generators."""
    legacy = np.random.get_state(legacy=False)["state"]
    return torch.get_rng_state().tolist(), legacy["key"].tobytes(), legacy["pos"], random.getstate()


def _differences(one: Sequence[Outcome], other: Sequence[Outcome], tolerance: float) -> int:
    """Number of samples with another result."""
    return sum(not _same(a, b, tolerance) for a, b in zip(one, other, strict=True))


def _same(one: Outcome, other: Outcome, tolerance: float) -> bool:
    counts = [(outcome.forwards, outcome.backwards, outcome.taken) for outcome in (one, other)]
    if counts[0] != counts[1]:
        return False
    if one.adversarial is None or other.adversarial is None:
        return one.adversarial is other.adversarial
    return bool((one.adversarial - other.adversarial).abs().max() <= tolerance)


def _distances(problem: Problem, outcomes: Sequence[Outcome]) -> Tensor:
    """float64 (N,), distance of each example; infinite for samples without one."""
    points = [problem.images[one.sample] if one.adversarial is None else one.adversarial for one in outcomes]
    found = torch.tensor([one.adversarial is not None for one in outcomes])
    return torch.where(found, distance(torch.stack(points), problem.images, problem.threat.norm), torch.inf)


def _properties(rule: Rule[Any], trials: Sequence[_Trial]) -> Iterator[str]:
    where = "the box [0, 1]" if rule.leaves_ball or rule.minimum_norm else "the ball and the box [0, 1]"
    yield f"It stays in {where}, and changes no tensor in place."
    yield f"It gives each sample the same result at batch sizes 1, 7 and {_WHOLE}."
    yield f"The oracle counted all of its {sum(trial.passes for trial in trials):,} forward and backward passes."
    yield "It is deterministic, and leaves global random generators alone."


def _strength(rule: Rule[Any], norm: Norm, trials: Sequence[_Trial]) -> Iterator[str]:
    for kind in KINDS:
        some = [trial for trial in trials if trial.problem.kind == kind and trial.problem.threat.norm == norm]
        broken, by_pgd = (
            sum(trial.broken(found) for trial, found in zip(some, runs, strict=True)) for runs in _runs(some)
        )
        passes, of_pgd = (sum(map(_passes, runs)) / len(some) for runs in _runs(some))
        samples = sum(trial.problem.breakable for trial in some)
        known = " that can be broken" if kind == "linear models" else ""
        yield (
            f"On {len(some)} {kind} under {norm} it breaks {broken} of the {samples} samples{known}, in {passes:.1f} passes a "
            f"sample; PGD with as many steps and restarts breaks {by_pgd}, in {of_pgd:.1f}."
        )
        if rule.minimum_norm and kind == "linear models":
            ratios = torch.cat([_distances(trial.problem, trial.outcomes) / trial.problem.exact for trial in some])
            yield f"Its distances there are {float(ratios.median()):.4g} times the exact ones (median)."


def _runs(trials: Sequence[_Trial]) -> tuple[list[list[Outcome]], list[list[Outcome]]]:
    return [trial.outcomes for trial in trials], [trial.pgd for trial in trials]


def _passes(outcomes: Sequence[Outcome]) -> float:
    """Mean number of forward and backward passes of a sample."""
    return sum(outcome.forwards + outcome.backwards for outcome in outcomes) / len(outcomes)
