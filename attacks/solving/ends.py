"""Where the stages of a sample ended: the points from which a later stage may start its search.

A stage with gradients that does not break a sample still ends somewhere: at the point of the least margin of all that it
evaluated, by the logits that its rule saw, or at the latest of them where the margins are equal, as those of labels are. The
direction from the clean image to that point is what the stage knows of the way to another class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

KEPT = 4
"""Number of stages whose ends are kept for a sample: the latest."""


class Ends:
    """The ends of each sample's stages, while it is under attack."""

    def __init__(self) -> None:
        """Of no sample yet."""
        self._points: dict[int, tuple[Tensor, ...]] = {}

    def add(self, sample: int, point: Tensor) -> None:
        """Keep the end (C, H, W) of another stage of the sample, in a copy."""
        self._points[sample] = (*self._points.get(sample, ()), point.clone())[-KEPT:]

    def forget(self, sample: int) -> None:
        """The attack on the sample is over."""
        self._points.pop(sample, None)

    def of(self, samples: Sequence[int], clean: Tensor) -> Tensor:
        """The ends of the samples, the latest stage first, (N, KEPT, C, H, W); `clean` (N, C, H, W) where there are fewer."""
        rows = []
        for sample, image in zip(samples, clean, strict=True):
            points = self._points.get(sample, ())[::-1]
            rows.append(torch.stack([*points, *[image] * (KEPT - len(points))]))
        return torch.stack(rows)
