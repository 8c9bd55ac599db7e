"""Backward pass differentiable approximation: Athalye, Carlini, Wagner (ICML 2018), section 4.1.

A defense g is replaced in the backward pass only: by a differentiable h of about the same values, or, where g keeps what it
is given close to what it was, g(x) ≈ x, by the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gauntlet.attacks.views.backward_modes import with_identity_gradient


class StraightThrough(nn.Module):
    """`transform` in the forward pass, bit for bit; `substitute`, or the identity, in the backward pass."""

    def __init__(self, transform: nn.Module, substitute: nn.Module | None = None) -> None:
        """Wraps a module from images to images, or from logits to logits."""
        super().__init__()
        self.transform = transform
        self.substitute = substitute
        # A module is born in training mode; this one follows what it wraps.
        self.training = transform.training

    def forward(self, x: Tensor) -> Tensor:
        """What `transform` makes of x. Raises ValueError where that changes shape or dtype, and nothing stands in for it."""
        with torch.no_grad():
            transformed: Tensor = self.transform(x.detach())
        near = x if self.substitute is None else self.substitute(x)
        if transformed.shape != near.shape or transformed.dtype != near.dtype:
            what = "identity" if self.substitute is None else f"substitute {type(self.substitute).__name__}"
            raise ValueError(
                f"the defense maps {tuple(x.shape)} {x.dtype} to {tuple(transformed.shape)} {transformed.dtype}: the {what} "
                "cannot stand in for its gradient; give it a substitute of its shape, or attack it without gradients"
            )
        return with_identity_gradient(near, transformed)


def straight_through(transform: nn.Module, substitute: nn.Module | None = None) -> StraightThrough:
    """The module that gradient attacks get in place of a transformation without a useful gradient."""
    return StraightThrough(transform, substitute)
