"""A mask that purifies: the image is replaced by the nearest one that a decoder can draw, found by optimisation in each pass.

Samangouei, Kabkab and Chellappa 2018, "Defense-GAN", arXiv 1805.06605, with a linear decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from gauntlet.bench.checks.hidden_masks import MaskedNetwork, undefended
from gauntlet.bench.checks.masks.training import training_digits

COMPONENTS, STEPS, RATE = 24, 25, 0.4


@cache
def _decoder() -> tuple[Tensor, Tensor]:
    """The mean training image (64,) and the leading components (24, 64)."""
    images = training_digits()[0].flatten(1)
    mean = images.mean(0)
    return mean, torch.linalg.svd(images - mean, full_matrices=False).Vh[:COMPONENTS]


def purified(images: Tensor) -> Tensor:
    """The decoder's image after 25 steps of descent on the squared distance, from the mean image."""
    mean, components = (part.to(images) for part in _decoder())
    code = images.new_zeros(len(images), COMPONENTS)
    for _ in range(STEPS):
        drawn = mean + code @ components
        code = code - RATE * (drawn - images.flatten(1)) @ components.T
    return (mean + code @ components).clamp(0, 1).view_as(images)


def _hidden(purify: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def without_gradient(images: Tensor) -> Tensor:
        with torch.no_grad():
            return purify(images)

    return without_gradient


def purification() -> nn.Module:
    """The optimisation runs without gradients."""
    return MaskedNetwork(undefended(), _hidden(purified))


def purification_twin() -> nn.Module:
    """The optimisation is differentiated."""
    return MaskedNetwork(undefended(), purified)
