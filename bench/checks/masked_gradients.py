"""Detection of masked gradients: whether the pipeline's gradients exist, are correct and are useful."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.dlr import dlr
from gauntlet.attacks.ops.losses import LOSSES, Loss, cw
from gauntlet.attacks.ops.norms import random_point
from gauntlet.attacks.views.guard import guarded
from gauntlet.attacks.views.rejection_view import reduced
from gauntlet.bench.checks.subject import Finding, Subject, fired, not_applicable, passed, reported, without_gradients
from gauntlet.defenses.pipeline import profile as profiles

ALL_LOSSES: dict[str, Loss] = {**LOSSES, "dlr": dlr}
"""The untargeted losses of the attacks; targeted losses use the same logits."""
DRAWS = 8
"""Number of passes over which gradients of a randomised pipeline are averaged."""
DIRECTIONS = 8
"""Number of random directions per sample."""
REACH = 0.25
"""Step along a direction as a share of eps: that of an attack, at which quantised values show the slope that they hide."""
DISAGREEMENT = 0.5
"""Disagreement above which autograd is wrong for a sample: 0 is agreement, 1 zero against non-zero, 2 opposite signs."""
SHARE = 0.25
"""Share of the compared samples that must be wrong for the check to fire."""
UNSTABLE_DRAWS = 100
UNSTABLE_RADIUS = 4 / 255
_UNSTABLE_SAMPLES = 16


def unavailable_gradients(subject: Subject) -> Finding:
    """Computing the gradient fails, or all its entries are zero (Pintor et al. 2022, indicator 1)."""
    name, few = "unavailable-gradients", subject.few()
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
        f"{what} through the pipeline{declared}: gradient attacks measure nothing. Attack it by BPDA and "
        "without gradients: --attacks adaptive.",
        needs=without_gradients(subject),
        evidence={"samples": len(few.labels)},
        samples=few.named(torch.ones_like(few.labels, dtype=torch.bool)),
    )


def zero_gradient(subject: Subject) -> Finding:
    """At an attack's start the gradient of a loss is zero or not finite for a sample (AutoAttack's checks; ART)."""
    name, few = "zero-gradient", subject.few().right
    if not len(few.labels):
        return not_applicable(name, "No sample is classified correctly.")
    start = random_point(few.images, few.threat, few.draws(name))
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
        f"At the start of an attack, gradients are zero or not finite for part of {len(few.labels)} samples ({text}): an "
        f"attack on {worst} does not move there. Attack by other losses, by BPDA and without gradients: --attacks adaptive.",
        needs=without_gradients(subject),
        evidence=shares,
        samples=few.named(any_dead),
    )


def finite_differences(subject: Subject) -> Finding:
    """Autograd's slope along random directions differs from the pipeline's slope at the scale of an attack's steps."""
    name, few = "finite-differences", subject.few().right
    if not len(few.labels):
        return not_applicable(name, "No sample is classified correctly.")
    distances = disagreement(few, few.pipeline)
    if distances is None:
        bridged = disagreement(few, few.view) if subject.declared else None
        if bridged is None:
            return not_applicable(name, "There are no gradients, see unavailable-gradients.")
        value = float(bridged[bridged.isfinite()].mean()) if bridged.isfinite().any() else math.nan
        return reported(
            name,
            f"The pipeline has no gradient; BPDA's gradient differs from finite differences by {value:.2f} on average "
            "(0: the same, 1: no better than zero).",
            bpda_disagreement=value,
        )
    judged = distances.isfinite()
    wrong = judged & (distances > DISAGREEMENT)
    figures = {
        "wrong": int(wrong.sum()),
        "judged": int(judged.sum()),
        "mean_disagreement": float(distances[judged].mean()) if judged.any() else math.nan,
    }
    summary = (
        f"on {figures['wrong']} of {figures['judged']} samples (mean disagreement {figures['mean_disagreement']:.2f})"
    )
    if figures["wrong"] < max(3, SHARE * figures["judged"]):
        return passed(name, f"Autograd and finite differences disagree {summary}.", **figures)
    return fired(
        name,
        "block",
        f"Autograd and finite differences along random directions disagree {summary}: the gradient does not show where the "
        "loss rises. Attack by BPDA and without gradients: --attacks adaptive.",
        needs=without_gradients(subject),
        evidence=figures,
        samples=few.named(wrong),
    )


def optimisation_at_test_time(subject: Subject) -> Finding:
    """The pipeline's forward pass calls autograd (AutoAttack's checks)."""
    name, few = "optimisation-at-test-time", subject.few(8)
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
        needs=("transfer" if twin else "bpda", "black-box"),
        evidence={"calls": taken.calls},
    )


def unstable_predictions(subject: Subject) -> Finding:
    """Mean relative change of the loss over 100 uniform draws within ±4/255, each capped at 1 (Pintor et al. 2022)."""
    name, few = "unstable-predictions", subject.few(_UNSTABLE_SAMPLES)
    draws, total = few.draws(name), torch.zeros(len(few.labels), dtype=torch.float64, device=few.images.device)
    with guarded(subject.pipeline, 0), torch.no_grad():
        clean = _mean_loss(few, few.images)
        for number in range(UNSTABLE_DRAWS):
            at = draws.at(step=torch.full_like(draws.step, number))
            noise = (2 * at.uniform(few.images.shape[1:], dtype=few.images.dtype) - 1) * UNSTABLE_RADIUS
            value = cw(_logits(few, few.pipeline, (few.images + noise).clamp(0, 1), number), few.labels).double()
            total += ((value - clean).abs() / clean.abs()).nan_to_num(1.0).clamp_max(1)
    figure = float((total / UNSTABLE_DRAWS).mean())
    return reported(
        name,
        f"Uniform noise of ±4/255 changes the margin by {100 * figure:.1f} % on average ({len(few.labels)} samples, "
        f"{UNSTABLE_DRAWS} draws): near 100 % the gradient is not informative about its neighbourhood.",
        mean_relative_change=figure,
    )


def mean_gradient(subject: Subject, model: nn.Module, images: Tensor, loss: Loss) -> Tensor | None:
    """The gradient (N, C, H, W) of a loss, averaged over draws if the pipeline is randomised; None if there is none."""
    total: Tensor | None = None
    draws = DRAWS if subject.randomised else 1
    with guarded(model, 0):
        for number in range(draws):
            shown = partial(_logits, subject, model, number=number)
            gradient = profiles.gradient(shown, images, subject.labels, loss)
            if gradient is None:
                return None
            total = gradient / draws if total is None else total + gradient / draws
    return total


def disagreement(subject: Subject, model: nn.Module) -> Tensor | None:
    """Disagreement of autograd with finite differences, for each sample, float64 (N,) from 0 to 2; NaN where both are zero.

    The function is the logit of the likeliest wrong class minus the label's; directions are random signs, and the step is
    `REACH` · eps in the threat model's norm. Both sides of a difference use the same draws of a randomised pipeline, and
    draws are averaged. None if there is no gradient.
    """
    step = _step(subject)
    # Both ends are inside the box.
    base = subject.images.clamp(min(step, 0.5), max(1 - step, 0.5))
    rival = _rival(subject, model, base)
    slope = mean_gradient(subject, model, base, rival)
    if slope is None:
        return None
    draws = subject.draws("directions")
    apart = torch.zeros(len(base), dtype=torch.float64, device=base.device)
    size = torch.zeros_like(apart)
    with guarded(model, 0), torch.no_grad():
        for number in range(DIRECTIONS):
            at = draws.at(step=torch.full_like(draws.step, number))
            signs = 2.0 * at.integers(2, base.shape[1:]).to(base.dtype) - 1
            ends = [_mean(subject, model, base + way * step * signs, rival) for way in (1, -1)]
            measured = (ends[0] - ends[1]) / (2 * step)
            said = (slope * signs).double().flatten(1).sum(1)
            apart += (measured - said).abs()
            size += torch.maximum(measured.abs(), said.abs())
    return torch.where(size > 0, apart / size, torch.nan)


def _step(subject: Subject) -> float:
    pixels = subject.images[0].numel()
    return REACH * subject.threat.eps / {"Linf": 1, "L2": math.sqrt(pixels), "L1": pixels}[subject.threat.norm]


def _rival(subject: Subject, model: nn.Module, base: Tensor) -> Loss:
    """The logit of the likeliest wrong class at `base` minus the label's. A fixed class avoids a kink where it changes."""
    with guarded(model, 0), torch.no_grad():
        logits = _logits(subject, model, base, 0)
    labels = subject.labels
    other = logits.scatter(1, labels[:, None], -torch.inf).argmax(1)

    def loss(values: Tensor, own: Tensor) -> Tensor:
        return (values.gather(1, other[:, None]) - values.gather(1, own[:, None])).squeeze(1)

    return loss


def _mean(subject: Subject, model: nn.Module, points: Tensor, loss: Loss) -> Tensor:
    draws = DRAWS if subject.randomised else 1
    values = [loss(_logits(subject, model, points, number), subject.labels).double() for number in range(draws)]
    return torch.stack(values).mean(0)


def _mean_loss(subject: Subject, points: Tensor) -> Tensor:
    return _mean(subject, subject.pipeline, points, cw)


def _logits(subject: Subject, model: nn.Module, points: Tensor, number: int) -> Tensor:
    """Logits of the K-class problem (N, K), with random numbers that depend on `number`, keyed or from torch."""
    with torch.random.fork_rng(devices=_cuda(points)):
        torch.manual_seed(number)
        outputs = profiles.pass_over(model, points, number)
    return reduced(outputs, subject.labels) if subject.pipeline.rejects else outputs


def _cuda(points: Tensor) -> list[int]:
    return [points.device.index or 0] if points.device.type == "cuda" else []
