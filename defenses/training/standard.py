"""Training on the clean images: the undefended baseline."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.defenses.training.recipe import Recipe


def loss(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator, done: float = 1.0
) -> Tensor:
    """Cross-entropy on the clean images."""
    return cross_entropy(model(x), y)


RECIPE = Recipe(
    name="standard",
    summary="cross-entropy on clean images",
    source="the undefended baseline",
    loss=loss,
    adversarial=False,
)
