"""Rounding: of points towards the clean image, and of logits relative to those that decide the prediction.

What cannot change a prediction must not change what is allowed: a constant that is added to all logits, a positive factor, or
classes that take no part because their logits are very low or −∞. So differences are compared with the distances between logits,
and with the resolution of the numbers themselves, never with the largest absolute value.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gauntlet.attacks.ops.losses import largest_other, margin

RESOLUTION = 4
"""Units in the last place by which a logit may differ between two ways to compute the same sum."""
_ROOM = 8
"""Units in the last place of the clean image's margin: far more than two batch compositions differ by, far less than an attack
aims at."""
FAR = 64
"""Multiples of rounding, and of what single images and batches differ by, beyond which neither decides a prediction."""


def round_towards(exact: Tensor, center: Tensor, dtype: torch.dtype) -> Tensor:
    """`exact` (float64) in `dtype`, rounded towards `center` (float64, held by `dtype`), so that no point leaves a ball."""
    point = exact.to(dtype)
    outwards = (point - center).abs() > (exact - center).abs()
    return torch.where(outwards, torch.nextafter(point, center.to(dtype)), point)


def resolution(logits: Tensor, labels: Tensor) -> Tensor:
    """The rounding, (N,), of the two logits that decide: the label's and the largest other one of logits (N, K).

    Infinite or not a number where one of them is.
    """
    own, other = logits.gather(1, labels[:, None]).squeeze(1), largest_other(logits, labels)
    return resolution_of(own, other)


def resolution_of(own: Tensor, other: Tensor) -> Tensor:
    """The same of the label's logits and the largest other ones, both (N,)."""
    return RESOLUTION / 2 * torch.finfo(own.dtype).eps * torch.maximum(own.abs(), other.abs())


def with_room(logits: Tensor, known: Tensor, labels: Tensor) -> Tensor:
    """Logits (N, K) with the label's raised by the rounding that they, and those of the clean image, `known` (N, K), may have."""
    room = torch.maximum(resolution(logits.detach(), labels), resolution(known, labels))
    room = room + _ROOM * torch.finfo(logits.dtype).eps * margin(known, labels).abs()
    room = torch.where(room.isfinite(), room, 0).to(logits.dtype)
    return logits + torch.zeros_like(logits).scatter(1, labels[:, None], room[:, None])


def decides(logits: Tensor) -> Tensor:
    """Whether each image has a prediction and an alternative, bool (N,): the two largest of logits (N, K), K ≥ 2, are finite.

    −∞ takes a class out, as very low logits do; NaN, +∞ and a single class that takes part decide nothing.
    """
    return logits.topk(2, dim=1).values.isfinite().all(1)


def lead(logits: Tensor) -> Tensor:
    """The largest logit minus the second largest, (N,): what must change before the prediction does. Of logits (N, K), K ≥ 2."""
    best = logits.topk(2, dim=1).values
    return best[:, 0] - best[:, 1]


def difference(logits: Tensor, reference: Tensor) -> float:
    """How far logits (N, K) of a few images are from the `reference`, as a share of what decides; NaN where one is not a number.

    A class's difference, less the resolution of the reference, is divided by the largest `lead` of all images and, the lower the
    class lies, by its distance from the top in addition. −∞ differs from −∞ by nothing, and from any number without bound.
    """
    fixed = reference.to(torch.float64)
    apart = (logits.to(torch.float64) - fixed).abs() - RESOLUTION * torch.finfo(reference.dtype).eps * fixed.abs()
    scale = lead(fixed).amax() + (fixed.amax(1, keepdim=True) - fixed)
    share = apart.clamp_min(0) / scale.clamp_min(torch.finfo(torch.float64).tiny)
    moved = fixed.isinf() | logits.isinf()
    share = torch.where(logits == reference, 0.0, torch.where(moved, torch.inf, share))
    return float(share.amax())
