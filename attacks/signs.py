"""What an attack's course says of a sample: how near it came, and whether the gradients can be believed.

A stage of a cascade may be reserved for samples that show a sign. Signs are the sample's own: who else is attacked, in which
batch and order, plays no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gauntlet.attacks.losses import margin
from gauntlet.attacks.task import Outcome


def nearness(shown: Tensor, labels: Tensor, logits: Tensor) -> Tensor:
    """Margin as a share of the logits' range, (N,): at most 1, 0 on the boundary, negative beyond.

    `shown` (N, K) and `labels` (N,) are what the margin is taken of, `logits` (N, K) the model's own. It does not change when
    logits are multiplied by a number or shifted. Infinite where it is not a number.
    """
    share = margin(shown, labels) / (logits.amax(1) - logits.amin(1))
    return torch.where(share.isfinite(), share, torch.inf)


class Sign(Protocol):
    """Decides from what happened so far whether a stage faces a sample."""

    def __call__(self, outcome: Outcome) -> bool:
        """Whether it does."""
        ...


@dataclass(frozen=True)
class Near:
    """Some attack came nearer to another class than `below`, a share of the logits' range."""

    below: float

    def __call__(self, outcome: Outcome) -> bool:
        """Over all stages so far."""
        return outcome.near("gradient", "probe") < self.below


@dataclass(frozen=True)
class Masked:
    """The gradients look masked: half of them vanished, or a probe without gradients came nearer than all of them.

    Athalye, Carlini and Wagner 2018 (arXiv 1802.00420), section 3.1: that a black-box attack does better than a white-box
    attack is a sign of obfuscated gradients.
    """

    def __call__(self, outcome: Outcome) -> bool:
        """False before any gradient was taken."""
        vanished = outcome.backwards > 0 and 2 * outcome.vanished >= outcome.backwards
        return vanished or outcome.near("probe") < outcome.near("gradient")
