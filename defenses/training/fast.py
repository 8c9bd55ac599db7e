"""Fast adversarial training: Wong, Rice, Kolter, "Fast is better than free", ICLR 2020, arXiv 2001.03994."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.defenses.training.inner_attack import ascend, uniform_start
from gauntlet.defenses.training.recipe import Recipe


def loss(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator, done: float = 1.0
) -> Tensor:
    """Cross-entropy after one FGSM step of 1.25 eps from a random start (algorithm 3)."""
    start = uniform_start(x, threat, generator)
    adversarial = ascend(
        start, x, lambda point: cross_entropy(model(point), y, reduction="sum"), 1.25 * threat.eps, threat
    )
    return cross_entropy(model(adversarial), y)


RECIPE = Recipe(
    name="fast",
    summary="FGSM with random start",
    source="Wong, Rice, Kolter 2020, arXiv 2001.03994; Adam in place of SGD",
    loss=loss,
    safeguard=True,
)
