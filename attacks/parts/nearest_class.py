"""The boundary nearest to a point in the linearised model, found by one pass for each wrong class.

FAB and DeepFool share it. A step of either is a pass for one class and not the whole Jacobian, so that a slot whose sample is
broken is freed before it pays for the other classes, and only one gradient is kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gauntlet.attacks.ops.box_projection import dual_size
from gauntlet.attacks.ops.norms import per_image
from gauntlet.attacks.solving.oracle import Oracle


class Nearest(NamedTuple):
    """The classes examined at the present point so far; leading dimension: the slot."""

    order: Tensor
    """int64 (N, M), the classes to examine, most likely first; -1 before the first pass of the slot."""
    place: Tensor
    """int64 (N,), how many of them have been examined."""
    away: Tensor
    """float64 (N,), distance of the nearest boundary so far in the linearised model; infinite before the first class."""
    gap: Tensor
    """(N,), logit of the nearest class minus that of the label."""
    normal: Tensor
    """(N, C, H, W), gradient of `gap`."""


def begin(x: Tensor, count: int) -> Nearest:
    """No class examined yet, for `count` classes at the points `x`."""
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
    """One pass at `x` for the next class of each slot. Returns the logits and the updated `Nearest`.

    In the first pass of a slot its logits rank the classes; the `rank` (int64 (N,)) most likely classes are skipped. A slot whose
    classes have all been examined starts again. If there are fewer classes, the last class repeats. Slots marked in `freely`,
    bool (N,), examine the most likely wrong class at `x` instead.
    """
    free = torch.zeros_like(nearest.place, dtype=torch.bool) if freely is None else freely
    anew = nearest.place >= nearest.order.shape[1]
    place = torch.where(anew, 0, nearest.place)
    away = torch.where(anew, torch.inf, nearest.away)
    skipped = torch.zeros_like(place) if rank is None else rank

    # Ranking costs as much as everything else together, and only the first pass of a slot needs it, in its first step.
    ranking = bool((oracle.made == 0).any()) or (freely is not None and bool(free.any()))
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
    # Without a gradient there is no boundary.
    distance = torch.where(slope > 0, gap.abs().to(torch.float64) / torch.where(slope > 0, slope, 1.0), torch.inf)
    nearer = (distance < away) | (place == 0) | free
    return logits, Nearest(
        order=order,
        place=place + 1,
        away=torch.where(nearer, distance, away),
        gap=torch.where(nearer, gap, nearest.gap),
        normal=torch.where(per_image(nearer, x), gradient, nearest.normal),
    )
