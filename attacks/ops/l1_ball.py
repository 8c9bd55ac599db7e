"""The L1 ball within the box [0, 1]: the exact projection, and sparse steps; float64 inside.

Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", ICML 2021 (arXiv 2103.01208).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gauntlet.attacks.ops.rounding import round_towards


def project_l1(x: Tensor, clean: Tensor, radius: Tensor) -> Tensor:
    """The point nearest to `x` (N, …), in L2, of the box and the L1 ball of `radius` (N,) around `clean` (N, …) in the box.

    It is exact (proposition 2.1 of the paper): a pixel's change |x − clean| becomes |x − clean| − λ, at least 0 and at most
    its room in the box, with the one λ ≥ 0 of the image for which the sum of changes is the radius. That sum is piecewise
    linear in λ, with two kinks a pixel: one sort finds the piece. Pixels that are not changed are those of `clean` exactly,
    and rounding to the dtype of x goes towards `clean`, so that no point leaves the ball. NaN stays NaN.
    """
    center = clean.flatten(1).to(torch.float64)
    delta = x.flatten(1).to(torch.float64) - center
    size, room = delta.abs(), torch.where(delta > 0, 1 - center, center)
    level = _level(size, room, radius.to(torch.float64)[:, None])
    exact = center + delta.sign() * torch.minimum((size - level).clamp_min(0), room)
    return round_towards(exact, center, x.dtype).view_as(x)


def _level(size: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """The least λ ≥ 0 (N, 1) at which the sum of min(max(size − λ, 0), room), both (N, D), is at most the radius (N, 1)."""
    # From a large λ downwards: a pixel begins to change at λ = size and is at its room from λ = size − room.
    kinks, order = torch.cat([size, size - room], dim=1).clamp_min(0).sort(dim=1, descending=True)
    moving = torch.where(order < size.shape[1], 1, -1).cumsum(1)
    # A sum of nonnegative terms, one for each piece: nothing cancels.
    added = moving[:, :-1] * (kinks[:, :-1] - kinks[:, 1:])
    total = torch.nn.functional.pad(added.cumsum(1), (1, 0))
    piece = (torch.searchsorted(total, radius, right=True) - 1).clamp(0, kinks.shape[1] - 1)
    left = (radius - total.gather(1, piece)) / moving.gather(1, piece).clamp_min(1)
    inside = torch.minimum(size, room).sum(1, keepdim=True) <= radius
    return torch.where(inside, 0.0, (kinks.gather(1, piece) - left).clamp_min(0))


def sparse_ascent(gradient: Tensor, count: Tensor) -> Tensor:
    """A step of L1 length 1 along the signs of the `count` (N,) largest entries of each `gradient` (N, …).

    Entries of equal size are taken together, and entries that are 0 are never taken, so that a gradient of zeros gives no step.
    (Steepest ascent would change a single pixel, which makes weak attacks.)
    """
    flat = gradient.flatten(1)
    least = flat.abs().sort(dim=1, descending=True).values.gather(1, count[:, None] - 1)
    sign = torch.where(flat.abs() >= least, flat.sign(), 0.0)
    return (sign / sign.abs().sum(1, keepdim=True).clamp_min(1)).view_as(gradient)


def ascent_in_box(gradient: Tensor, x: Tensor, share: float) -> Tensor:
    """`sparse_ascent` along the share `share`, in (0, 1], of the entries, without those of `x` (N, …) that would leave [0, 1]."""
    free = torch.where(gradient > 0, x < 1, x > 0)
    count = math.ceil(share * math.prod(x.shape[1:]))
    counts = torch.full((len(x),), count, dtype=torch.int64, device=x.device)
    return sparse_ascent(torch.where(free, gradient, 0.0), counts)
