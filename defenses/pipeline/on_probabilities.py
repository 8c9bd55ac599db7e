"""The module that output defenses share: a function of probabilities, while models output logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gauntlet.defenses.pipeline.through_numpy import Postprocessor


class OnProbabilities(nn.Module):
    """A function of the softmax of logits (N, K), in the logits' dtype.

    The result is not converted to logarithms, since many defenses output zeros. The prediction is the first of the largest
    entries. The softmax is in float64, where it rounds to 1 only for logits that differ by 36, not 17 as in float32.
    """

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        """`change`: from probabilities (N, K), float64, to outputs (N, K)."""
        super().__init__()
        self.change = change

    def forward(self, logits: Tensor) -> Tensor:
        """Outputs (N, K) for logits (N, K)."""
        return self.change(torch.softmax(logits.to(torch.float64), dim=1)).to(logits.dtype)


def through_art(postprocessor: Postprocessor) -> OnProbabilities:
    """A postprocessor of ART, from arrays to arrays, as a module without a gradient."""
    return OnProbabilities(lambda p: torch.from_numpy(postprocessor(p.detach().cpu().numpy())).to(p))
