"""Gaussian noise: Gilmer et al., "Adversarial examples are a natural consequence of test error", ICML 2019."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.defenses.training.recipe import Recipe

SIGMA = 0.25


def loss(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator, done: float = 1.0
) -> Tensor:
    """Cross-entropy on images with Gaussian noise of standard deviation 0.25, not clipped."""
    noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return cross_entropy(model(x + SIGMA * noise), y)


RECIPE = Recipe(
    name="gauss",
    summary="cross-entropy on images with Gaussian noise, sigma 0.25",
    source="Gilmer et al. 2019, arXiv 1901.10513; as the base classifier of Cohen et al. 2019, arXiv 1902.02918",
    loss=loss,
    adversarial=False,
)
