"""The smallest move onto a hyperplane within the box [0, 1], in Linf, L2 and L1: exact, for a whole batch."""

from __future__ import annotations

import torch
from torch import Tensor

from gauntlet.attacks.ops.norms import per_image
from gauntlet.attacks.ops.threat import Norm


def dual_size(gradient: Tensor, norm: Norm) -> Tensor:
    """The dual norm of each image of `gradient` (N, …) in float64, (N,): the steepest slope per unit of `norm`."""
    order = {"Linf": 1.0, "L2": 2.0, "L1": torch.inf}[norm]
    size: Tensor = torch.linalg.vector_norm(gradient.flatten(1).to(torch.float64), ord=order, dim=1)
    return size


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each image of `a` with that of `b`, in float64, (N,)."""
    return (a.flatten(1).to(torch.float64) * b.flatten(1).to(torch.float64)).sum(1)


def move_to_hyperplane(x: Tensor, normal: Tensor, gain: Tensor, norm: Norm) -> Tensor:
    """The d (N, …) of smallest norm with ⟨normal, d⟩ = gain and x + d in [0, 1]; computed in float64, returned like x.

    `x` (N, …) lies in the box; `normal` has its shape; `gain` (N,) has either sign. If the box does not reach the hyperplane,
    d goes as near to it as the box allows, and no further than needed. If the normal is 0, d is 0.

    Each norm needs one sort (Croce and Hein 2020, section 3.1 and appendix A). A pixel can move by its `room` before it reaches
    the box. For Linf and L2 each pixel moves by min(λ·speed, room), so that the gain is piecewise linear in λ with a kink
    where a pixel stops. For L1 the pixels with the largest weights move to the box, one after another.
    """
    point, weight = x.flatten(1).to(torch.float64), normal.flatten(1).to(torch.float64)
    # Gradients may be as small as their dtype allows, and are squared below.
    scale = weight.abs().amax(1, keepdim=True)
    scale = torch.where(scale > 0, scale, 1.0)
    weight = weight / scale
    needed = (gain.to(torch.float64)[:, None] / scale).nan_to_num()
    direction = weight.sign() * needed.sign()
    weight, needed = weight.abs(), needed.abs()
    room = torch.where(direction > 0, 1 - point, point).clamp_min(0)
    size = _greedy(weight, room, needed) if norm == "L1" else _together(weight, room, needed, norm)
    return (direction * size).to(x.dtype).view_as(x)


def _together(weight: Tensor, room: Tensor, needed: Tensor, norm: Norm) -> Tensor:
    """How far each pixel moves, (N, D), if pixel i moves by min(λ·speed_i, room_i)."""
    speed = torch.ones_like(weight) if norm == "Linf" else weight
    moving = weight > 0
    # Pixels without weight never move.
    stop = torch.where(moving, room / torch.where(moving, speed, 1.0), 0.0)
    rate = weight * speed
    stop_sorted, order = stop.sort(dim=1)
    rate_sorted = rate.gather(1, order)
    gain = rate_sorted * stop_sorted
    stopped = gain.cumsum(1)
    # Summed from the end, not subtracted, which would leave rounding errors.
    left = rate_sorted.flip(1).cumsum(1).flip(1)
    gained = stopped - gain + stop_sorted * left
    first = torch.searchsorted(gained, needed).clamp_max(weight.shape[1] - 1)
    before = (stopped - gain).gather(1, first)
    slope = left.gather(1, first)
    level = torch.where(slope > 0, (needed - before) / torch.where(slope > 0, slope, 1.0), 0.0)
    reachable = needed <= gained[:, -1:]
    level = torch.where(reachable, level.clamp_min(0), stop_sorted[:, -1:])
    return torch.where(moving, torch.minimum(level * speed, room), 0.0)


def _greedy(weight: Tensor, room: Tensor, needed: Tensor) -> Tensor:
    """How far each pixel moves, (N, D), if pixels with larger weights move first."""
    order = weight.argsort(dim=1, descending=True, stable=True)
    weights = weight.gather(1, order)
    most = weights * room.gather(1, order)
    gained = (needed - (most.cumsum(1) - most)).clamp_min(0).minimum(most)
    sizes = torch.where(weights > 0, gained / torch.where(weights > 0, weights, 1.0), 0.0)
    return torch.zeros_like(weight).scatter(1, order, sizes).minimum(room)


def shrink_to_ball(delta: Tensor, radius: Tensor, norm: Norm) -> Tensor:
    """Euclidean projection of each `delta` (N, …) onto the ball of its `radius` (N,); L1 after Duchi et al., ICML 2008."""
    if norm == "Linf":
        bound = per_image(radius.to(delta.dtype), delta)
        return torch.maximum(torch.minimum(delta, bound), -bound)
    flat = delta.flatten(1).to(torch.float64)
    radius = radius.to(torch.float64)[:, None]
    if norm == "L2":
        size = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
        small = torch.where(size > radius, flat * (radius / size.clamp_min(torch.finfo(torch.float64).tiny)), flat)
        return small.to(delta.dtype).view_as(delta)
    sizes = flat.abs().sort(1, descending=True).values
    excess = sizes.cumsum(1) - radius
    count = torch.arange(1, flat.shape[1] + 1, device=flat.device)
    last = (sizes * count > excess).sum(1, keepdim=True).clamp_min(1)
    threshold = (excess.gather(1, last - 1) / last).clamp_min(0)
    return (flat.sign() * (flat.abs() - threshold).clamp_min(0)).to(delta.dtype).view_as(delta)
