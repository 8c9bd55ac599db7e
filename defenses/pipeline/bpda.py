"""Backward pass differentiable approximation (BPDA): Athalye, Carlini, Wagner (ICML 2018), section 4.1.

A defense g is replaced in the backward pass only: by a differentiable h with about the same values, or by the identity if
g(x) ≈ x.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gauntlet.attacks.views.guard import in_training
from gauntlet.attacks.views.interception.soft import with_identity_gradient


class StraightThrough(nn.Module):
    """`transform` in the forward pass, bit for bit; `substitute`, or the identity, in the backward pass."""

    def __init__(self, transform: nn.Module, substitute: nn.Module | None = None) -> None:
        """Wrap a module from images to images, or from logits to logits."""
        super().__init__()
        self.transform = transform
        self.substitute = substitute
        # New modules are in training mode; this module takes the mode of the wrapped module.
        self.training = in_training(transform)

    def forward(self, x: Tensor) -> Tensor:
        """`transform(x)`. Raises ValueError if shape or dtype differ from those of the substitute."""
        with torch.no_grad():
            transformed: Tensor = self.transform(x.detach())
        near = x if self.substitute is None else self.substitute(x)
        if transformed.shape != near.shape or transformed.dtype != near.dtype:
            what = "identity" if self.substitute is None else f"substitute {type(self.substitute).__name__}"
            raise ValueError(
                f"the defense maps {tuple(x.shape)} {x.dtype} to {tuple(transformed.shape)} {transformed.dtype}: the {what} "
                "cannot replace its gradient; give it a substitute of the same shape, or attack it without gradients"
            )
        return with_identity_gradient(near, transformed)


def straight_through(transform: nn.Module, substitute: nn.Module | None = None) -> StraightThrough:
    """The module that gradient attacks receive in place of a transformation without a useful gradient."""
    return StraightThrough(transform, substitute)
