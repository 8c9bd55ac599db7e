"""How far the gradient of a randomised pipeline varies from draw to draw, which says over how many draws to average it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.input_gradient import input_gradient
from gauntlet.attacks.ops.losses import cw
from gauntlet.attacks.views.backward_modes import INTERCEPTED, Backward, backward_mode
from gauntlet.attacks.views.interception.release import release
from gauntlet.defenses.pipeline.finite_differences import Outputs

PASSES = 32
"""Number of draws of the measurement."""


def gradient_noise(
    model: nn.Module, outputs: Outputs, points: Tensor, labels: Tensor, backward: Backward = "true"
) -> float | None:
    """The gradient noise scale of the margin loss at points (N, C, H, W) with labels (N,), the median over the samples.

    tr Σ / |G|², with G the mean and Σ the covariance of the gradient over draws:
    the number of draws whose mean has as much noise as signal (McCandlish, Kaplan, Amodei et al. 2018, "An empirical
    model of large-batch training", arXiv 1812.06162, section 2.2, whose batch is a set of draws here). Both are estimated without
    bias from `PASSES` draws, which see no larger scale than their number: that is the result where no signal is seen. 0 for a
    model without randomness; None without any gradient.
    """
    total: Tensor | None = None
    squares = torch.zeros(len(points), dtype=torch.float64, device=points.device)
    for number in range(PASSES):
        found = _gradient(model, outputs, points, labels, backward, number)
        if found is None:
            return None
        flat = torch.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0).double().flatten(1)
        total = flat if total is None else total + flat
        squares += flat.square().sum(1)
    assert total is not None
    seen = squares > 0
    if not bool(seen.any()):
        return None
    power = (total / PASSES).square().sum(1)
    noise = (squares / PASSES - power).clamp_min(0) * PASSES / (PASSES - 1)
    signal = power - noise / PASSES
    ratio = torch.where(signal > 0, noise / torch.where(signal > 0, signal, 1), math.inf)
    return min(float(ratio[seen].median()), float(PASSES))


def _gradient(
    model: nn.Module, outputs: Outputs, points: Tensor, labels: Tensor, backward: Backward, number: int
) -> Tensor | None:
    at = points.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            with backward_mode(backward, len(at)) as completed:
                logits = completed(outputs(model, at if backward == "true" else at.clone(), labels, number))
            value = cw(logits, labels)
            return input_gradient(value, at)
    except (RuntimeError, TypeError):
        return None
    finally:
        if backward in INTERCEPTED:
            release(model)
