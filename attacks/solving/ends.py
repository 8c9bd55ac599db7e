"""What the stages of a sample leave to later ones: the points where they ended, and the classes to attack first.

A stage with gradients that does not break a sample still ends somewhere: at the point of the least margin of all that it
evaluated, by the logits that its rule saw, or at the latest of them where the margins are equal, as those of labels are. The
direction from the clean image to that point is what the stage knows of the way to another class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gauntlet.attacks.solving.slots import RANKED

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


class Orders:
    """The classes to attack first of each sample, as a stage ranked them, while it is under attack."""

    def __init__(self, device: torch.device) -> None:
        """Of no sample yet."""
        self._unknown = torch.full((RANKED,), -1, dtype=torch.int64, device=device)
        self._orders: dict[int, Tensor] = {}

    def add(self, sample: int, order: Tensor) -> None:
        """Keep the order (RANKED,) of a sample, in a copy."""
        self._orders[sample] = order.clone()

    def forget(self, sample: int) -> None:
        """The attack on the sample is over."""
        self._orders.pop(sample, None)

    def of(self, samples: Sequence[int], *, first: bool) -> Tensor:
        """The orders of the samples, int64 (N, RANKED); -1 where none is known, and everywhere unless `first`."""
        return torch.stack([self._orders.get(sample, self._unknown) if first else self._unknown for sample in samples])
