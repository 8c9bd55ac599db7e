"""The model linearised at a point, one wrong class a pass, until the nearest of their boundaries is known.

FAB and DeepFool share it. A step of either is one pass for one class, not the whole Jacobian, so that a slot whose sample is
broken is freed before it pays for the other classes, and no more than one gradient is kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gauntlet.attacks.ops.box_projection import dual_size
from gauntlet.attacks.ops.norms import per_image
from gauntlet.attacks.solving.oracle import Oracle


class Nearest(NamedTuple):
    """How far the look at the present point has come; leading dimension: the slot."""

    order: Tensor
    """int64 (N, M), the classes that are looked at, likeliest first; -1 before the first pass of the slot."""
    place: Tensor
    """int64 (N,), how many of them were looked at."""
    away: Tensor
    """float64 (N,), distance of the nearest boundary so far in the linearised model; infinite before the first."""
    gap: Tensor
    """(N,), there: logit of that class minus the label's."""
    normal: Tensor
    """(N, C, H, W), gradient of `gap`."""


def begin(x: Tensor, count: int) -> Nearest:
    """Nothing looked at, for `count` classes at the points `x`."""
    zero = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    away = torch.full(zero.shape, torch.inf, dtype=torch.float64, device=x.device)
    order = torch.full((len(x), count), -1, dtype=torch.int64, device=x.device)
    return Nearest(order=order, place=zero, away=away, gap=x.new_zeros(len(x)), normal=torch.zeros_like(x))


def nearest_of(state: tuple[Any, ...]) -> Nearest:
    """The fields of `Nearest` of a rule's state that has them."""
    return Nearest(**{name: getattr(state, name) for name in Nearest._fields})


def look(
    nearest: Nearest, x: Tensor, oracle: Oracle, rank: Tensor | None = None, freely: Tensor | None = None
) -> tuple[Tensor, Nearest]:
    """One pass at `x` for the next class of each slot. Returns the logits and what is known now.

    In a slot's first pass the classes are ranked by its own logits; `rank` int64 (N,), how many of the likeliest are skipped.
    A slot whose classes have all been looked at begins anew. Where there are fewer classes, the last one repeats. Slots
    that are `freely` looked at, bool (N,), look at the likeliest wrong class of `x` instead, and at no other.
    """
    free = torch.zeros_like(nearest.place, dtype=torch.bool) if freely is None else freely
    anew = nearest.place >= nearest.order.shape[1]
    place = torch.where(anew, 0, nearest.place)
    away = torch.where(anew, torch.inf, nearest.away)
    skipped = torch.zeros_like(place) if rank is None else rank

    # Ranking costs as much as all the rest together, and is needed in a slot's first pass only.
    ranking = bool((nearest.order < 0).any()) or bool(free.any())
    order = nearest.order

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        nonlocal order
        target = place[:, None]
        if ranking:
            likely = (
                logits.detach().scatter(1, labels[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)
            )
            columns = skipped[:, None] + torch.arange(order.shape[1], device=labels.device)
            order = torch.where(order < 0, likely.gather(1, columns.clamp_max(logits.shape[1] - 2)), order)
            target = torch.where(free[:, None], likely[:, :1], order.gather(1, target))
        else:
            target = order.gather(1, target)
        return (logits.gather(1, target) - logits.gather(1, labels[:, None])).squeeze(1)

    logits, gap, gradient = oracle.gradient(x, loss)
    slope = dual_size(gradient, oracle.threat.norm)
    # Where no gradient is left, there is no boundary in sight.
    distance = torch.where(slope > 0, gap.abs().to(torch.float64) / torch.where(slope > 0, slope, 1.0), torch.inf)
    nearer = (distance < away) | (place == 0) | free
    return logits, Nearest(
        order=order,
        place=place + 1,
        away=torch.where(nearer, distance, away),
        gap=torch.where(nearer, gap, nearest.gap),
        normal=torch.where(per_image(nearer, x), gradient, nearest.normal),
    )
