"""Examples of 8-bit images, rounded to 8-bit images themselves wherever these still break their samples.

They take a tenth of the room (`gauntlet.leaderboard.examples.differences`), and a file of images can hold them. What is recorded
of a sample (margin, distance, prediction) is measured of the rounded example.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from gauntlet.attacks.solving.task import Outcome
from gauntlet.bench.verify.verifier import Verifier

_STEPS: Final = (2, 1)
"""Differences from the clean image are multiples of the first of these that still breaks the sample."""
_SLACK: Final = 1e-6
_VALUES: Final = 2**20
"""Pixels whose levels are computed at once."""


def clean_levels(images: Tensor) -> Tensor | None:
    """Images (N, C, H, W) in levels of 0 to 255, int16; None where one is no 8-bit image."""
    parts = [_levels(images[rows]) for rows in _parts(images)]
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known and len(known) == len(parts) else None


def _levels(images: Tensor) -> Tensor | None:
    levels = (images * 255).round()
    in_range = bool(((levels >= 0) & (levels <= 255)).all())
    return levels.to(torch.int16) if in_range and torch.equal(_values(levels.to(torch.int64)), images) else None


def _parts(images: Tensor) -> Iterator[slice]:
    """Slices of few images, since levels are computed in 64 bits, several times over."""
    count = max(1, _VALUES // images.shape[1:].numel())
    return (slice(start, start + count) for start in range(0, len(images), count))


def rounded(verify: Verifier, outcomes: Sequence[Outcome], clean: Tensor, first: int) -> Sequence[Outcome]:
    """The outcomes with rounded examples, where these are verified; `clean` (N, C, H, W) are levels from sample `first` on."""
    broken = [number for number, outcome in enumerate(outcomes) if outcome.adversarial is not None]
    settled = list(outcomes)
    for step in _STEPS:
        if not broken:
            break
        points = torch.stack([point for number in broken if (point := outcomes[number].adversarial) is not None])
        samples = torch.tensor([outcomes[number].sample for number in broken], device=verify.labels.device)
        near = _near(verify, points, clean[samples - first], step)
        holds = verify.together(near, samples).success.tolist()
        for number, point, held in zip(broken, near, holds, strict=True):
            if held:
                settled[number] = replace(settled[number], adversarial=point.clone(), unverified=False)
        broken = [number for number, held in zip(broken, holds, strict=True) if not held]
    return settled


def _near(verify: Verifier, points: Tensor, clean: Tensor, step: int) -> Tensor:
    """The images (N, C, H, W) nearest to points whose levels differ from the clean ones by multiples of `step`."""
    return torch.cat(
        [_values(_to_steps(verify, points[rows], clean[rows].to(torch.int64), step)) for rows in _parts(points)]
    )


def _to_steps(verify: Verifier, points: Tensor, clean: Tensor, step: int) -> Tensor:
    """The levels (N, C, H, W) near points that differ from the clean levels by multiples of `step` and lie inside the ball."""
    exact = (points.to(torch.float64) * 255 - clean) / step
    steps, most = exact.round().to(torch.int64), verify.threat.eps * 255 / step
    if verify.threat.norm == "Linf":
        steps = steps.clamp(-math.floor(most + _SLACK), math.floor(most + _SLACK))
    else:
        steps = _to_norm(steps, exact, most * (1 - _SLACK), square=verify.threat.norm == "L2")
    # Not beyond the levels that there are, where rounding goes away from the clean image.
    return clean + step * torch.minimum(torch.maximum(steps, -(clean // step)), (255 - clean) // step)


def _to_norm(steps: Tensor, exact: Tensor, most: float, *, square: bool) -> Tensor:
    """Whole steps (N, C, H, W), rounded from `exact`, with nearly its norm, and at most `most`.

    Where rounding made the norm larger, coordinates that were rounded away from the clean image get one step fewer; where it made
    it smaller, those that were rounded towards it get one more; the least clear ones first. `square`: the norm is L2, else L1.
    Where these are too few, the norm stays larger.
    """
    taken, wanted = steps.flatten(1).abs(), exact.flatten(1).abs()
    norm, own = ((one**2 if square else one).sum(1, keepdim=True) for one in (taken, wanted))
    excess = norm - own.clamp_max(most**2 if square else most)
    sign = torch.where(excess > 0, -1, 1)
    unclear = sign * (wanted - taken)
    costs = torch.where(unclear > 0, 2 * taken + sign if square else torch.ones_like(taken), torch.zeros_like(taken))
    order = unclear.argsort(1, descending=True)
    cost = costs.gather(1, order)
    spent = cost.cumsum(1)
    changed = (cost > 0) & torch.where(excess > 0, spent - cost < excess, spent <= -excess)
    change = torch.zeros_like(taken).scatter(1, order, changed.to(taken.dtype))
    return steps + (exact.flatten(1).sign().to(taken.dtype) * sign * change).view_as(steps)


def _values(levels: Tensor) -> Tensor:
    """Levels as float32 in 0..1: those that reading 8-bit images gives, whatever the device divides by."""
    return (torch.arange(256, dtype=torch.float32) / 255).to(levels.device)[levels]
