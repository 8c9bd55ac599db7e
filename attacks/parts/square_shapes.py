"""Sizes and shapes of the updates of Square Attack (Andriushchenko et al., ECCV 2020)."""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from gauntlet.attacks.ops.threat import Norm

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Updates of 10,000 after which the share of changed pixels is halved: section 5 of the paper."""


class Schedule(NamedTuple):
    """The squares of all steps, on the attack's device."""

    level: Tensor
    """int64 (queries,), index into `sides` at each step."""
    sides: Tensor
    """int64 (levels,), ascending; 0 at level 0, the step that evaluates the starting point."""
    bumps: Tensor
    """(levels, 2, S, S): `bump` of each level's side, upright and transposed, in a canvas of the largest side."""


@lru_cache(maxsize=32)
def schedule(
    queries: int,
    p_init: float,
    pace: float,
    size: tuple[int, ...],
    norm: Norm,
    dtype: torch.dtype,
    device: torch.device,
) -> Schedule:
    """Squares that cover the share `p_init` of an image of `size` (H, W) at first, and half of it after each halving.

    `pace`: number of updates of the schedule for each query. Except for Linf, sides are odd and, if the image is large enough,
    at least 3.
    """
    odd = norm != "Linf"
    sides, largest = [0], min(size)
    for update in range(queries - 1):
        share = p_init / 2 ** bisect_left(_HALVINGS, int(update * pace))
        side = max(round(math.sqrt(share * size[0] * size[1])), 3 if odd else 1)
        sides.append(min(side | 1, largest - 1 | 1) if odd else min(side, largest))
    levels, level = torch.unique(torch.tensor(sides), return_inverse=True)
    bumps = torch.zeros(len(levels), 2, max(sides), max(sides), dtype=dtype)
    for place, side in enumerate(levels.tolist()):
        bumps[place, 0, :side, :side] = bump(side, norm)
        bumps[place, 1, :side, :side] = bump(side, norm).T
    # The host need not wait until they have arrived.
    return Schedule(*(one.to(device, non_blocking=True) for one in (level, levels, bumps)))


def bump(side: int, norm: Norm = "L2") -> Tensor:
    """The update (side, side), float64, of norm 1: concentric steps, above steps of the opposite sign.

    Section 3.4 of the paper, equation 2: η for the upper side // 2 rows, −η for the rest. For L1, section 4 of Croce and
    Hein 2021 (arXiv 2103.01208) and AutoAttack's code: steps that fall as the fourth power, not the second.
    """
    both = torch.cat([_steps(side // 2, side, norm), -_steps(side - side // 2, side, norm)])
    return _unit(both, norm)


def _steps(height: int, width: int, norm: Norm) -> Tensor:
    power = 4 if norm == "L1" else 2
    heights = 1 / torch.arange(1, max(height, width) // 2 + 2, dtype=torch.float64) ** power
    rows, columns = (torch.arange(n).sub(n // 2).abs() for n in (height, width))
    steps = heights.flip(0).cumsum(0).flip(0)[torch.maximum(rows[:, None], columns[None, :])]
    return _unit(steps, norm)


def _unit(shape: Tensor, norm: Norm) -> Tensor:
    unit: Tensor = shape / torch.linalg.vector_norm(shape, ord=1 if norm == "L1" else 2).clamp_min(1e-12)
    return unit
