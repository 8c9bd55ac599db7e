"""Backward pass differentiable approximation: Athalye, Carlini, Wagner (ICML 2018), section 4.1.

A defense g that keeps images close to what they were, g(x) ≈ x, is replaced by the identity in the backward pass only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gauntlet.attacks.straight_through import with_identity_gradient


class StraightThrough(nn.Module):
    """`transform` in the forward pass, bit for bit; the identity in the backward pass."""

    def __init__(self, transform: nn.Module) -> None:
        """Wraps a module from images to images."""
        super().__init__()
        self.transform = transform
        # A module is born in training mode; this one follows what it wraps.
        self.training = transform.training

    def forward(self, images: Tensor) -> Tensor:
        """Transformed images (N, C, H, W). Raises ValueError where the transformation changes shape or dtype."""
        with torch.no_grad():
            transformed = self.transform(images.detach())
        if transformed.shape != images.shape or transformed.dtype != images.dtype:
            raise ValueError(
                f"the defense maps {tuple(images.shape)} {images.dtype} to {tuple(transformed.shape)} "
                f"{transformed.dtype}: the identity cannot stand in for its gradient; attack it without gradients"
            )
        return with_identity_gradient(images, transformed)


def straight_through(transform: nn.Module) -> StraightThrough:
    """The module that gradient attacks get in place of a transformation without a useful gradient."""
    return StraightThrough(transform)
