"""What output defenses share: they act on probabilities, and so does ART, while models give logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gauntlet.defenses.pipeline.through_numpy import Postprocessor


class OnProbabilities(nn.Module):
    """Logits (N, K) to what a function makes of their softmax, (N, K), in the logits' dtype.

    The result is given out as it is, not as a logarithm: many defenses make zeros. The prediction is the first of the largest
    entries. The softmax is in float64, where it rounds to exactly 1 only for logits that are 36 apart, instead of 17.
    """

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        """`change`: from probabilities (N, K) to what is given out, (N, K), float64."""
        super().__init__()
        self.change = change

    def forward(self, logits: Tensor) -> Tensor:
        """What is given out for logits (N, K)."""
        return self.change(torch.softmax(logits.to(torch.float64), dim=1)).to(logits.dtype)


def through_art(postprocessor: Postprocessor) -> OnProbabilities:
    """A postprocessor of ART, from arrays to arrays, as a module: no gradient passes through it."""
    return OnProbabilities(lambda p: torch.from_numpy(postprocessor(p.detach().cpu().numpy())).to(p))
