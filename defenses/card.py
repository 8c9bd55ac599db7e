"""What the registry knows of a defense at inference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # listing defenses must not import torch
    from torch import nn


@dataclass(frozen=True)
class DefenseCard:
    """What a defense is, for listings, and for choosing the attack that fits it."""

    name: str
    summary: str
    """One line."""
    source: str
    """Paper, or library with class name."""
    differentiable: bool
    """Whether autograd gives the true, useful gradient through it."""
    randomised: bool
    """Whether two passes over the same input may differ."""


@dataclass(frozen=True)
class DefenseEntry:
    """A registry entry: the card, and `build(**settings)`, a module from images to images.

    The module maps float tensors (N, C, H, W) in [0, 1] to the same shape, dtype and range, on the input's device. It
    need not support autograd where the card says that it is not differentiable. `version` rises when its output changes.
    """

    card: DefenseCard
    build: Callable[..., nn.Module]
    version: int = 1

    def make(self, **settings: Any) -> nn.Module:
        """The transformation, with a setting that it does not have refused by name."""
        try:
            return self.build(**settings).eval()
        except TypeError as error:
            raise ValueError(f"settings {settings!r} do not fit defense {self.card.name!r}: {error}") from error
