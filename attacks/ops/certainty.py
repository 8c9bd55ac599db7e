"""Candidates that no rounding decides: they end their sample's attack, and a block of them is verified in one pass."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gauntlet.attacks.ops.losses import largest_other, margin
from gauntlet.attacks.ops.rounding import FAR, resolution_of


@dataclass(frozen=True)
class Certainty:
    """How far from the boundary a candidate lies that need not be verified as soon as it is found."""

    apart: float
    """By what logits differ that are computed in other batches. A sure candidate's margin is `FAR` times as large as this and as
    rounding."""
    coarse: float = 0.0
    """In low precision, the share of the clean image's margin that it has to reach as well; 0: none is sure."""
    low: bool = False
    """Whether the logits are those of low precision."""

    def of(self, *, low: bool) -> Certainty | None:
        """The same for logits in low precision or not; None where none is sure."""
        return None if low and not self.coarse else replace(self, low=low)

    def sure(self, logits: Tensor, labels: Tensor, clean_logits: Tensor | None = None) -> Tensor:
        """Where logits (N, K) are surely those of another class than the label (N,), bool (N,).

        `clean_logits` (N, K): those of the clean images, needed in low precision.
        """
        own, other = logits.gather(1, labels[:, None]).squeeze(1), largest_other(logits, labels)
        bound = FAR * resolution_of(own, other).clamp_min(self.apart)
        if clean_logits is not None:
            bound = torch.maximum(bound, self.coarse * margin(clean_logits, labels).abs())
        return other - own > bound
