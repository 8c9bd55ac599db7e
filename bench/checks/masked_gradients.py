"""Detection of masked gradients: whether the pipeline's gradients exist, are correct and are useful."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.dlr import dlr
from gauntlet.attacks.ops.losses import LOSSES, Loss, cw
from gauntlet.attacks.ops.norms import random_point
from gauntlet.attacks.ops.random import Draws
from gauntlet.attacks.views.guard import guarded
from gauntlet.bench.checks.subject import (
    Finding,
    Subject,
    culprits,
    fired,
    not_applicable,
    passed,
    reported,
    without_gradients,
)
from gauntlet.defenses.pipeline import profile as profiles
from gauntlet.defenses.pipeline.finite_differences import DIRECTIONS, Verdict, judge_gradients
from gauntlet.leaderboard.results.record import EVIDENCE

ALL_LOSSES: dict[str, Loss] = {**LOSSES, "dlr": dlr}
"""The untargeted losses of the attacks; targeted losses use the same logits."""
DRAWS = 8
"""Number of passes over which gradients of a randomised pipeline are averaged."""
REACH = 0.25
"""Step along a direction as a share of eps: that of an attack, at which quantised values show the slope that they hide."""
SHARE = 0.25
"""Share of the compared samples that must be wrong for the check to fire, and at least `LEAST`: a wrong gradient is wrong on most
samples, and on a right one no more than single samples lie at kinks."""
LEAST = 3
UNSTABLE_DRAWS = 100
UNSTABLE_RADIUS = 4 / 255
_UNSTABLE_SAMPLES = 16
_TOGETHER = 64
"""Images in one pass, at most."""
UNSTABLE_DRAWS_COSTLY = 16
"""The same for a costly pipeline, of which checks also look at half of the samples and directions."""


def unavailable_gradients(subject: Subject) -> Finding:
    """Computing the gradient fails, or all its entries are zero (Pintor et al. 2022, indicator 1)."""
    name, few = "unavailable-gradients", subject.glance()
    gradient = mean_gradient(few, few.pipeline, few.images, cw)
    if gradient is not None and bool((gradient != 0).any()):
        return passed(name, f"Autograd reaches the images through the whole pipeline ({len(gradient)} samples).")
    what = (
        "Autograd fails, or does not reach the images," if gradient is None else "Every entry of the gradient is zero"
    )
    declared = " (as its card declares)" if subject.declared else ""
    return fired(
        name,
        "block",
        f"{what} through the pipeline{declared or culprits(few)}: gradient attacks measure nothing. Attack it by BPDA and "
        "without gradients: --attacks adaptive.",
        needs=without_gradients(subject),
        evidence={"samples": len(few.labels)},
        samples=few.named(torch.ones_like(few.labels, dtype=torch.bool)),
    )


def zero_gradient(subject: Subject) -> Finding:
    """At an attack's start the gradient of a loss is zero or not finite for a sample (AutoAttack's checks; ART).

    Points that are misclassified are left out: an attack needs no gradient there, and ratio losses are constant at some of them.
    """
    name, few = "zero-gradient", subject.glance().right
    if not len(few.labels):
        return not_applicable(name, "No sample is classified correctly.")
    start = random_point(few.images, few.threat, few.draws(name))
    with guarded(few.pipeline, 0), torch.no_grad():
        right = few.logits(few.pipeline, start, few.labels, 0).argmax(1) == few.labels
    few, start = few.of(right.nonzero().squeeze(1)), start[right]
    if not len(few.labels):
        return not_applicable(name, "Every sample is misclassified at the start of an attack.")
    shares: dict[str, float] = {}
    any_dead = torch.zeros_like(few.labels, dtype=torch.bool)
    for loss_name, loss in ALL_LOSSES.items():
        gradients = mean_gradient(few, few.pipeline, start, loss)
        if gradients is None:
            return not_applicable(name, "There are no gradients, see unavailable-gradients.")
        dead = profiles.dead(gradients)
        any_dead |= dead
        shares[loss_name] = int(dead.sum()) / len(dead)
    worst = max(shares, key=lambda loss_name: shares[loss_name])
    if not any_dead.any():
        return passed(name, f"No gradient of {', '.join(shares)} vanishes on {len(few.labels)} samples.", **shares)
    text = ", ".join(f"{loss_name} {100 * share:.0f} %" for loss_name, share in shares.items())
    return fired(
        name,
        "block",
        f"At the start of an attack, gradients are zero or not finite ({text} of {len(few.labels)} samples)"
        f"{culprits(few)}: an "
        f"attack on {worst} does not move there. Attack by other losses, by BPDA and without gradients: --attacks adaptive.",
        needs=without_gradients(subject),
        evidence=shares,
        samples=few.named(any_dead),
    )


def finite_differences(subject: Subject) -> Finding:
    """Autograd's slope differs from the pipeline's at every scale, or a step along it gains no more than random steps."""
    name, few = "finite-differences", subject.glance().right
    if not len(few.labels):
        return not_applicable(name, "No sample is classified correctly.")
    verdict = judged_gradients(few, few.pipeline)
    if verdict is None:
        bridged = judged_gradients(few, few.view) if subject.declared else None
        if bridged is None:
            return not_applicable(name, "There are no gradients, see unavailable-gradients.")
        value = _mean_of(bridged.far)
        return reported(
            name,
            f"The pipeline has no gradient; BPDA's gradient differs from finite differences by {value:.2f} on average "
            "(0: the same, 1: no better than zero).",
            bpda_disagreement=value,
        )
    count, wrong, lost = (int(which.sum()) for which in (verdict.far.isfinite(), verdict.wrong, verdict.lost))
    curved = int(verdict.curved.sum())
    figures = {
        "wrong": wrong,
        "lost": lost,
        "curved": curved,
        "judged": count,
        "mean_disagreement": _mean_of(verdict.far),
    }
    least = max(LEAST, SHARE * count)
    if wrong + lost >= least:
        return _not_to_be_followed(few, verdict, figures)
    sentence = (
        f"Autograd and finite differences agree on {count - wrong - curved} of {count} samples at the step of an attack"
    )
    if curved < least:
        return passed(name, f"{sentence}.", **figures)
    return reported(
        name,
        f"{sentence}, and on {curved} at smaller steps only: the function bends in between. On {curved - lost} of these a step "
        "along the gradient gains more than random steps.",
        **figures,
    )


def _not_to_be_followed(few: Subject, verdict: Verdict, figures: Mapping[str, float]) -> Finding:
    """The finding of gradients that are wrong, or right so near to a point alone that scores around it say nothing either."""
    wrong, lost, count = (f"{figures[key]:.0f}" for key in ("wrong", "lost", "judged"))
    needs = [one for one in without_gradients(few) if one in ("black-box", "transfer", EVIDENCE)]
    sentence = (
        f"Autograd and finite differences along random directions disagree at every scale on {wrong} of {count} samples"
        f"{culprits(few)}: the gradient does not show where the loss rises. Attack without gradients: --attacks adaptive."
    )
    if figures["lost"] > figures["wrong"]:
        sentence = (
            f"On {lost} of {count} samples the gradient holds only much nearer than at an attack's steps, and a step along it "
            "gains no more than random steps. Attack by the predicted classes: --attacks adaptive,hop_skip_jump."
        )
        needs[-1:-1] = [] if few.threat.norm == "L1" else ["decision-based"]
    return fired(
        "finite-differences",
        "block",
        sentence,
        needs=tuple(needs),
        evidence=figures,
        samples=few.named(verdict.wrong | verdict.lost),
    )


def optimisation_at_test_time(subject: Subject) -> Finding:
    """The pipeline's forward pass calls autograd (AutoAttack's checks)."""
    name, few = "optimisation-at-test-time", subject.glance(8)
    with guarded(subject.pipeline, 0), torch.no_grad(), profiles.gradients_taken() as taken:
        profiles.pass_over(subject.pipeline, few.images, 0)
    if not taken.calls:
        return passed(name, "The forward pass does not call autograd.")
    twin = subject.pipeline.twin is not None
    return fired(
        name,
        "block",
        f"The forward pass calls autograd ({taken.calls} times): it optimises at test time, and an attack does not get the "
        "gradient of the optimised result. Attack "
        + (
            "the undefended model and transfer the examples, and without gradients: --attacks adaptive."
            if twin
            else "without gradients."
        )
        + " Declare it with test_time_gradient.",
        needs=("transfer" if twin else "bpda", "black-box", EVIDENCE),
        evidence={"calls": taken.calls},
    )


def unstable_predictions(subject: Subject) -> Finding:
    """Mean relative change of the loss over 100 uniform draws within ±4/255, each capped at 1 (Pintor et al. 2022)."""
    name, few = "unstable-predictions", subject.glance(_UNSTABLE_SAMPLES // (2 if subject.costly else 1))
    number_of_draws = UNSTABLE_DRAWS_COSTLY if subject.costly else UNSTABLE_DRAWS
    draws, total = few.draws(name), torch.zeros(len(few.labels), dtype=torch.float64, device=few.images.device)
    with guarded(subject.pipeline, 0), torch.no_grad():
        clean = _mean_loss(few, few.images)
        # Each draw of a randomised pipeline has a pass of its own.
        together = 1 if few.randomised else max(1, _TOGETHER // max(1, len(few.labels)))
        for numbers in torch.arange(number_of_draws, device=few.images.device).split(together):
            many = len(numbers)
            keys, start, labels = draws.keys.repeat(many), draws.restart.repeat(many), few.labels.repeat(many)
            at = Draws(keys, start, numbers.repeat_interleave(len(few.labels)))
            noise = (2 * at.uniform(few.images.shape[1:], dtype=few.images.dtype) - 1) * UNSTABLE_RADIUS
            points = (few.images.repeat(many, *[1] * (few.images.dim() - 1)) + noise).clamp(0, 1)
            value = cw(few.logits(few.pipeline, points, labels, int(numbers[0])), labels).double()
            change = (value.view(many, -1) - clean).abs() / clean.abs()
            total += change.nan_to_num(1.0).clamp_max(1).sum(0)
    figure = float((total / number_of_draws).mean())
    return reported(
        name,
        f"Uniform noise of ±4/255 changes the margin by {100 * figure:.1f} % on average ({len(few.labels)} samples, "
        f"{number_of_draws} draws): near 100 % the gradient is not informative about its neighbourhood.",
        mean_relative_change=figure,
    )


def mean_gradient(subject: Subject, model: nn.Module, images: Tensor, loss: Loss) -> Tensor | None:
    """The gradient (N, C, H, W) of a loss, averaged over draws if the pipeline is randomised; None if there is none."""
    total: Tensor | None = None
    draws = DRAWS if subject.randomised else 1
    with guarded(model, 0):
        for number in range(draws):
            shown = partial(subject.logits, model, labels=subject.labels, number=number)
            gradient = profiles.gradient(shown, images, subject.labels, loss)
            if gradient is None:
                return None
            total = gradient / draws if total is None else total + gradient / draws
    return total


def judged_gradients(subject: Subject, model: nn.Module) -> Verdict | None:
    """Finite differences at the step of an attack, `REACH` · eps, and at smaller ones; None if there is no gradient.

    Both sides of a difference use the same draws of a randomised pipeline, and draws are averaged.
    """
    with guarded(model, 0):
        return judge_gradients(
            model,
            subject.logits,
            subject.images,
            subject.labels,
            subject.draws("directions"),
            length=REACH * subject.threat.eps,
            norm=subject.threat.norm,
            draws=DRAWS if subject.randomised else 1,
            directions=DIRECTIONS // (2 if subject.costly else 1),
        )


def _mean_of(values: Tensor) -> float:
    known = values[values.isfinite()]
    return float(known.mean()) if len(known) else math.nan


def _mean(subject: Subject, model: nn.Module, points: Tensor, loss: Loss) -> Tensor:
    draws = DRAWS if subject.randomised else 1
    values = [
        loss(subject.logits(model, points, subject.labels, number), subject.labels).double() for number in range(draws)
    ]
    return torch.stack(values).mean(0)


def _mean_loss(subject: Subject, points: Tensor) -> Tensor:
    return _mean(subject, subject.pipeline, points, cw)
