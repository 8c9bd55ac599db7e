"""Conditions under which a stage of a cascade faces a sample: it is near to another class, or its gradients look masked.

A condition looks at one sample only: which other samples are attacked, in which batch and order, plays no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gauntlet.attacks.ops.losses import margin
from gauntlet.attacks.solving.task import Outcome


def nearness(logits: Tensor, clean: Tensor, labels: Tensor) -> Tensor:
    """Margin as a share of the clean image's margin, (N,): 1 without progress, 0 on the boundary, negative beyond it.

    `logits` (N, K) of the points, `clean` (N, K) of the clean images. The share does not change if logits are scaled or
    shifted. It is infinite where it is not a number, or the clean image lies on the boundary or beyond it.
    """
    room = margin(clean, labels)
    share = margin(logits, labels) / room
    return torch.where(share.isfinite() & (room > 0), share, torch.inf)


def nearest(outcome: Outcome) -> float:
    """The least nearness over all stages so far but those on a smoothed loss; infinite before the first.

    Where only smoothed gradients came near, gradients of the loss itself do not: stages on them would be wasted.
    """
    return outcome.near("gradient", "substitute", "probe", "review")


class StageCondition(Protocol):
    """Decides from the stages so far whether a stage faces a sample."""

    def __call__(self, outcome: Outcome) -> bool:
        """Whether it does."""
        ...


@dataclass(frozen=True)
class Near:
    """Some stage, not on a smoothed loss, left less than the share `below` of the clean image's margin."""

    below: float

    def __call__(self, outcome: Outcome) -> bool:
        """Over all stages so far."""
        return nearest(outcome) < self.below


NO_HEADWAY = 0.8
"""Share of the clean image's margin that attacks rarely leave where their gradients mean anything."""


@dataclass(frozen=True)
class InDoubt:
    """What stages so far left does not decide: some came nearer than `below`, none left less than `above` of the margin, or half
    of the gradients vanished.

    So what stages in low precision left is measured again, and in L2 the boundary is followed. Where outputs saturate, as
    probabilities do, rounding them may take the slope away, and margins say nothing of the distance to a boundary: then no stage
    makes headway.
    """

    below: float
    above: float = NO_HEADWAY

    def __call__(self, outcome: Outcome) -> bool:
        """By the margins so far, also those in low precision."""
        return not self.below <= nearest(outcome) <= self.above or outcome.dead


@dataclass(frozen=True)
class Masked:
    """The gradients look masked: half of them vanished, or a probe without gradients came nearer than all of them.

    Athalye, Carlini and Wagner 2018 (arXiv 1802.00420), section 3.1: a black-box attack that does better than a white-box
    attack is a sign of obfuscated gradients.
    """

    def __call__(self, outcome: Outcome) -> bool:
        """False before the first gradient."""
        return outcome.dead or outcome.near("probe") < outcome.near("gradient")


@dataclass(frozen=True)
class Smoothed:
    """Gradients of a smoothed loss left less than the share `share` of the margin that those of the loss itself left: these lead
    nowhere in much of the ball."""

    share: float = 0.8

    def __call__(self, outcome: Outcome) -> bool:
        """False before the first gradient of a smoothed loss."""
        own = outcome.near("gradient")
        return outcome.near("smoothed") < min(self.share * own, own)
