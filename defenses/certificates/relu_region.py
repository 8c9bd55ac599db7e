"""The region of an attacker: a ball intersected with the box [0, 1], and the minimum of a linear function over it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gauntlet.attacks.ops.threat import Norm

_STEPS = 6
_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True, eq=False)
class Region:
    """The regions of N samples, float64 on the CPU."""

    low: Tensor
    """(N, D): smallest pixels."""
    high: Tensor
    """(N, D): largest pixels."""
    centre: Tensor
    """(N, D): clean pixels."""
    norm: Norm
    radius: float
    """Radius of the ball; for Linf the region is the box between `low` and `high`."""

    def __getitem__(self, rows: Tensor | slice) -> Region:
        """Select the regions of samples; samples may be repeated."""
        return Region(self.low[rows], self.high[rows], self.centre[rows], self.norm, self.radius)

    def least(self, row: Tensor) -> Tensor:
        """A lower bound of row · x over each region for rows (N, D), float64 (N,).

        Exact for Linf and L1. For L2 it is the Lagrangian dual in the multiplier of the norm: every multiplier gives a lower
        bound, and a few steps approach the best multiplier.
        """
        if self.norm == "Linf":
            return (row * (self.low + self.high) / 2).sum(1) - (row.abs() * (self.high - self.low) / 2).sum(1)
        room = torch.where(row > 0, self.centre - self.low, self.high - self.centre)
        weight = row.abs()
        if self.norm == "L1":
            weight, order = weight.sort(dim=1, descending=True)
            room = room.gather(1, order)
            lost = weight * torch.minimum(room, (self.radius - (room.cumsum(1) - room)).clamp_min(0))
            return (row * self.centre).sum(1) - lost.sum(1)
        # Each pixel moves by step · weight, at most to its bound; the step increases until the radius is reached.
        step = torch.zeros(len(row), 1, dtype=row.dtype)
        for _ in range(_STEPS):
            ends = (step * weight >= room) & (step > 0)
            left = (self.radius**2 - (ends * room.square()).sum(1, keepdim=True)).clamp_min(0)
            rest = (~ends * weight.square()).sum(1, keepdim=True).clamp_min(_TINY)
            step = torch.maximum(step, (left / rest).sqrt().clamp(1e-100, 1e100))
        moved = torch.minimum(step * weight, room)
        price = moved.square().sum(1) - self.radius**2
        return (row * self.centre - weight * moved).sum(1) + price / (2 * step.squeeze(1))


def region(images: Tensor, norm: Norm, radius: float) -> Region:
    """The regions of images (N, …), float64 in [0, 1]; `radius` at least 0."""
    flat = images.flatten(1)
    return Region((flat - radius).clamp_min(0), (flat + radius).clamp_max(1), flat, norm, radius)
