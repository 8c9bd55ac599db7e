"""PGD training: Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.defenses.training.inner_attack import ascend, uniform_start
from gauntlet.defenses.training.recipe import Recipe

STEPS = 10


def loss(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator, done: float = 1.0
) -> Tensor:
    """Cross-entropy at the end of 10 steps of PGD of 2.5 eps / 10 from a random start."""
    point = uniform_start(x, threat, generator)
    for _ in range(STEPS):
        point = ascend(
            point, x, lambda at: cross_entropy(model(at), y, reduction="sum"), 2.5 * threat.eps / STEPS, threat
        )
    return cross_entropy(model(point), y)


RECIPE = Recipe(
    name="pgd",
    summary="projected gradient descent, 10 steps, in training mode",
    source="Madry et al. 2018, arXiv 1706.06083; Adam in place of SGD",
    loss=loss,
)
