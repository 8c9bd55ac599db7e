"""AWP on TRADES: Wu, Xia, Wang, "Adversarial weight perturbation helps robust generalization", NeurIPS 2020."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.defenses.training.recipe import Recipe
from gauntlet.defenses.training.trades import farthest, trade_off

GAMMA = 0.005
WARM_UP = 0.05
"""Share of the training without perturbed weights: 10 of 200 epochs in the authors' code."""


def loss(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator, done: float = 1.0
) -> Tensor:
    """The loss of TRADES at weights w + v, where v increases it (algorithm 1); its gradient is that at w + v.

    The perturbed weights are passed to the model, not written into it, so that nothing is restored after the step.
    """
    point = farthest(model, x, threat, generator)
    if done < WARM_UP:
        return trade_off(model, x, point, y)
    weights = perturbed(model, x, point, y)
    return trade_off(lambda at: functional_call(model, weights, (at,)), x, point, y)


def perturbed(model: nn.Module, x: Tensor, point: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The weights after a step along the gradient of the loss, of length gamma · ‖w‖ for each layer.

    As in the authors' code (csdongxian/AWP, utils_awp.py) it is a single step in training mode, for weights of at least two
    dimensions (no biases, no batch norms); the running statistics of batch norms are not changed.
    """
    # Copies receive the updates of the running statistics.
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    value = trade_off(lambda at: functional_call(model, buffers, (at,)), x, point, y)
    weights = {name: weight for name, weight in model.named_parameters() if weight.dim() > 1 and weight.requires_grad}
    gradients = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
    moved = {}
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        if gradient is not None:
            size = gradient.norm().clamp_min(torch.finfo(gradient.dtype).tiny)
            moved[name] = weight + GAMMA * weight.detach().norm() / size * gradient
    return moved


RECIPE = Recipe(
    name="awp",
    summary="TRADES with adversarially perturbed weights, gamma 0.005",
    source="Wu, Xia, Wang 2020, arXiv 2004.05884; Adam in place of SGD, steps of 2.5 eps / 10",
    loss=loss,
)
