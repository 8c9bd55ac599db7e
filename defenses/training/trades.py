"""TRADES: Zhang et al., "Theoretically principled trade-off between robustness and accuracy", ICML 2019."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.defenses.training.inner_attack import ascend, evaluating
from gauntlet.defenses.training.recipe import Recipe

STEPS = 10
BETA = 6.0


def loss(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator, done: float = 1.0
) -> Tensor:
    """CE(f(x), y) + beta · KL(f(x) ‖ f(x')), where x' maximises the same divergence (algorithm 1 and eq. 5)."""
    return trade_off(model, x, farthest(model, x, threat, generator), y)


def farthest(model: nn.Module, x: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
    """The point of the ball with the largest divergence from the prediction at x, by 10 steps of 2.5 eps / 10.

    As in the authors' code (yaodongyu/TRADES, trades.py) it starts at x with Gaussian noise of 0.001, since the gradient of
    the divergence is zero at x itself, and is computed in eval mode.
    """
    with evaluating(model):
        with torch.no_grad():
            clean = softmax(model(x), dim=1)
        point = x + 0.001 * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        for _ in range(STEPS):
            point = ascend(
                point,
                x,
                lambda at: kl_div(log_softmax(model(at), dim=1), clean, reduction="sum"),
                2.5 * threat.eps / STEPS,
                threat,
            )
    return point


def trade_off(model: Callable[[Tensor], Tensor], x: Tensor, point: Tensor, y: Tensor) -> Tensor:
    """The loss at a given x': the divergence is a mean over the batch, and its gradient flows through both predictions."""
    logits = model(x)
    divergence = kl_div(log_softmax(model(point), dim=1), softmax(logits, dim=1), reduction="batchmean")
    return cross_entropy(logits, y) + BETA * divergence


RECIPE = Recipe(
    name="trades",
    summary="TRADES, beta 6, 10 steps",
    source="Zhang et al. 2019, arXiv 1901.08573; Adam in place of SGD, steps of 2.5 eps / 10",
    loss=loss,
)
