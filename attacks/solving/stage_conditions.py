"""What an attack's course says of a sample: how near it came, and whether the gradients can be believed.

A stage of a cascade may be reserved for samples that show a sign. Signs are the sample's own: who else is attacked, in which
batch and order, plays no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gauntlet.attacks.ops.losses import margin
from gauntlet.attacks.solving.task import Outcome


def nearness(logits: Tensor, clean: Tensor, labels: Tensor) -> Tensor:
    """Margin as a share of that of the clean image, (N,): 1 where nothing is gained, 0 on the boundary, negative beyond.

    `logits` (N, K) of the points, `clean` (N, K) of the clean images. It does not change when logits are multiplied by a number
    or shifted. Infinite where it is not a number, or the clean image is on the boundary or beyond.
    """
    room = margin(clean, labels)
    share = margin(logits, labels) / room
    return torch.where(share.isfinite() & (room > 0), share, torch.inf)


class Sign(Protocol):
    """Decides from what happened so far whether a stage faces a sample."""

    def __call__(self, outcome: Outcome) -> bool:
        """Whether it does."""
        ...


@dataclass(frozen=True)
class Near:
    """Some attack left less than the share `below` of the clean image's margin."""

    below: float

    def __call__(self, outcome: Outcome) -> bool:
        """Over all stages so far."""
        return outcome.near("gradient", "substitute", "probe") < self.below


@dataclass(frozen=True)
class Masked:
    """The gradients look masked: half of them vanished, or a probe without gradients came nearer than all of them.

    Athalye, Carlini and Wagner 2018 (arXiv 1802.00420), section 3.1: that a black-box attack does better than a white-box
    attack is a sign of obfuscated gradients.
    """

    def __call__(self, outcome: Outcome) -> bool:
        """False before any gradient was taken."""
        vanished = outcome.gradients > 0 and 2 * outcome.vanished >= outcome.gradients
        return vanished or outcome.near("probe") < outcome.near("gradient")
