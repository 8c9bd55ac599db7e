"""The training recipe: the loss on a batch, and the settings of its optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.threat import Norm, ThreatModel
from gauntlet.attacks.ops.validators import positive


class TrainingLoss(Protocol):
    """The loss of a recipe on a batch."""

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        generator: torch.Generator,
        done: float = 1.0,
    ) -> Tensor:
        """Scalar loss for images (N, C, H, W) in [0, 1] and labels (N,).

        Random numbers come from `generator`; `done` is the share of completed training steps, in [0, 1), for losses with a
        schedule.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training recipe: the loss, and the settings of Adam with a one-cycle learning rate (Smith and Topin 2018)."""

    name: str
    summary: str
    source: str
    """Paper, and departures from it."""
    loss: TrainingLoss
    adversarial: bool = True
    """Whether the training is against a threat model."""
    norm: Norm | None = None
    """The only supported norm; None for Linf and L2."""
    layers: bool = False
    """Whether the loss needs the layers of the model, which must then be a plain `nn.Sequential`."""
    safeguard: bool = False
    """Whether the training ends when robust accuracy on training samples collapses between two epochs."""
    epochs: int = 60
    batch_size: int = 100
    peak_rate: float = 2e-3
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        """Raises ValueError for settings that are not positive."""
        for name in ("epochs", "batch_size", "peak_rate"):
            positive(name, getattr(self, name))
