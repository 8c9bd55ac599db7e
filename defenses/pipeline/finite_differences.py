"""Is a gradient right? Autograd's slope is compared with finite differences along random directions, at several scales.

The function is the logit of the likeliest wrong class minus the label's, at a point near the image. A gradient that differs from
the differences at every scale is wrong. One that agrees at small scales and not at the step of an attack belongs to a function
that bends in between, as deep ReLU networks do; it is then asked whether a step along the gradient gains more than random
steps of the same length.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.norms import per_image
from gauntlet.attacks.ops.random import Draws
from gauntlet.attacks.ops.threat import Norm

DIRECTIONS = 8
"""Number of random directions of a sample."""
DISAGREEMENT = 0.5
"""Disagreement above which a gradient is wrong at a scale: 0 is agreement, 1 that of an unrelated gradient or of zero against
non-zero, 2 of opposite signs. A right gradient is below `STRAIGHT` wherever the function is straight."""
STRAIGHT = 0.25
"""A scale is judged where second differences are at most this share of first ones. A kink changes a difference quotient by the
second difference, so that a right gradient disagrees by at most this share; where rounding hides the slope, both are alike."""
SCALES = {torch.float64: (2.0**-20, 2.0**-16, 2.0**-12), torch.float32: (2.0**-11, 2.0**-9, 2.0**-7)}
"""Small steps, in pixel values; at the first most right gradients agree. In float32 differences of less are rounding."""
_TOGETHER = 64
"""Images in one pass, at most."""
_SAME = 1e-3
"""Relative difference of the deciding logits up to which a copy in float64 is the same model."""

Outputs = Callable[[nn.Module, Tensor, Tensor, int], Tensor]
"""(model, images, labels, number of the draw) to logits (N, K)."""


@dataclass(frozen=True, eq=False)
class Slice:
    """The function that is differentiated, on N samples: the logit of a fixed class minus the label's.

    A fixed class avoids a kink where the likeliest wrong class changes. `draws`: passes to average over, of a randomised model.
    """

    model: nn.Module
    outputs: Outputs
    labels: Tensor
    rivals: Tensor
    draws: int

    @classmethod
    def at(cls, model: nn.Module, outputs: Outputs, points: Tensor, labels: Tensor, draws: int) -> Slice:
        """The function with the likeliest wrong class at the points (N, C, H, W)."""
        with torch.no_grad():
            logits = outputs(model, points, labels, 0)
        return cls(model, outputs, labels, logits.scatter(1, labels[:, None], -torch.inf).argmax(1), draws)

    def of(self, rows: Tensor) -> Slice:
        """The same for the samples at `rows`, int64."""
        return replace(self, labels=self.labels[rows], rivals=self.rivals[rows])

    def difference(self, logits: Tensor) -> Tensor:
        """Values (N,) from logits (N, K)."""
        return (logits.gather(1, self.rivals[:, None]) - logits.gather(1, self.labels[:, None])).squeeze(1)

    def values(self, points: Tensor) -> Tensor:
        """Values at points (N, C, H, W), float64 (N,)."""
        with torch.no_grad():
            drawn = [
                self.difference(self.outputs(self.model, points, self.labels, number)).double()
                for number in range(self.draws)
            ]
        return torch.stack(drawn).mean(0)

    def several(self, points: Sequence[Tensor]) -> list[Tensor]:
        """`values` at each of several sets of points: several in one pass, unless draws are averaged, which follow the pass."""
        if self.draws > 1:
            return [self.values(some) for some in points]
        size, together = len(self.labels), max(1, _TOGETHER // max(1, len(self.labels)))
        found: list[Tensor] = []
        for first in range(0, len(points), together):
            some = points[first : first + together]
            wide = self.of(torch.arange(size, device=self.labels.device).repeat(len(some)))
            found += wide.values(torch.cat(list(some))).split(size)
        return found

    def slope(self, points: Tensor) -> Tensor | None:
        """The gradient (N, C, H, W) by autograd; None if there is none."""
        total: Tensor | None = None
        for number in range(self.draws):
            at = points.detach().clone().requires_grad_()
            try:
                with torch.enable_grad():
                    value = self.difference(self.outputs(self.model, at, self.labels, number)).sum()
                    gradient = torch.autograd.grad(value, at, allow_unused=True)[0] if value.requires_grad else None
            except (RuntimeError, TypeError):
                return None
            if gradient is None:
                return None
            total = gradient / self.draws if total is None else total + gradient / self.draws
        return total


@dataclass(frozen=True, eq=False)
class Comparison:
    """Autograd and finite differences at one scale, tensors (N,)."""

    disagreement: Tensor
    """float64 from 0 to 2; NaN where both are zero, or not finite."""
    straight: Tensor
    """bool, whether the function is straight at this scale, beyond rounding."""
    flat: Tensor
    """bool, whether the function does not change at all."""
    highest: Tensor
    """float64, the largest rise over both ways along all directions."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the differences say of each gradient; all but `far` are bool (N,)."""

    far: Tensor
    """float64, disagreement at the step of an attack; NaN where function and gradient are both constant."""
    wrong: Tensor
    """The gradient disagrees at every scale that could be judged."""
    curved: Tensor
    """It disagrees at the attack's step only: the function bends, or is a staircase."""
    lost: Tensor
    """Of these, a step along the gradient gains no more than the best of 2 · `directions` random steps of the same length."""


def judge_gradients(
    model: nn.Module,
    outputs: Outputs,
    images: Tensor,
    labels: Tensor,
    keys: Draws,
    *,
    length: float,
    norm: Norm,
    draws: int = 1,
    directions: int = DIRECTIONS,
) -> Verdict | None:
    """Judge the gradients of a model near images (N, C, H, W); None if there are none.

    `length`: of an attack's step in the norm. `keys`: random numbers, keyed by sample. `directions`: number of random ones.
    """
    step = length / _size(images, norm)
    base = interior(images, keys, step)
    function = Slice.at(model, outputs, base, labels, draws)
    slope = function.slope(base)
    if slope is None:
        return None
    far = compare(function, base, slope, keys, step, directions)
    wrong, curved, lost = (torch.zeros_like(labels, dtype=torch.bool) for _ in range(3))
    rows = (far.disagreement > DISAGREEMENT).nonzero().squeeze(1)
    if len(rows):
        some = function.of(rows)
        wrong[rows] = wrong_at_small_scales(some, base[rows], _keys(keys, rows), below=step / 4, directions=directions)
        along = (base[rows] + length * _unit(slope[rows], norm)).clamp(0, 1)
        gained = some.values(along) - some.values(base[rows])
        moves = (slope[rows] != 0).flatten(1).any(1)
        curved[rows] = ~wrong[rows]
        lost[rows] = curved[rows] & moves & (gained <= far.highest[rows])
    return Verdict(far.disagreement, wrong, curved, lost)


def wrong_at_small_scales(
    function: Slice, base: Tensor, keys: Draws, *, below: float = torch.inf, directions: int = DIRECTIONS
) -> Tensor:
    """Gradients that disagree at every small scale, of a step below `below`, at which the function is straight, bool (N,).

    In float64 where the model has a copy that computes in it. A staircase is flat at small scales, and is not judged.
    """
    function, base = _in_float64(function, base)
    slope = function.slope(base)
    judged, agreed = (torch.zeros_like(function.labels, dtype=torch.bool) for _ in range(2))
    if slope is None:
        return judged
    for step in SCALES.get(base.dtype, SCALES[torch.float32]):
        rows = (~agreed).nonzero().squeeze(1)
        if step <= below and len(rows):
            found = compare(function.of(rows), base[rows], slope[rows], _keys(keys, rows), step, directions)
            counts = found.straight & ~found.flat & found.disagreement.isfinite()
            judged[rows] |= counts
            agreed[rows] = counts & (found.disagreement <= DISAGREEMENT)
    return judged & ~agreed


def compare(
    function: Slice, base: Tensor, slope: Tensor, keys: Draws, step: float, directions: int = DIRECTIONS
) -> Comparison:
    """Compare the slope (N, C, H, W) with differences along random signs of `step`, a change of each pixel."""
    signs = torch.stack([_signs(keys, number, base) for number in range(directions)])
    middle, *ends = function.several(
        [base, *(base + way * step * signs[i] for i in range(directions) for way in (1, -1))]
    )
    up, down = torch.stack(ends[0::2]) - middle, torch.stack(ends[1::2]) - middle
    measured, said = (up - down) / (2 * step), (slope * signs).double().flatten(2).sum(2)
    apart, size = (measured - said).abs().sum(0), torch.maximum(measured.abs(), said.abs()).sum(0)
    first, second = (up - down).abs().sum(0), (up + down).abs().sum(0)
    highest = torch.maximum(up, down).amax(0)
    disagreement = torch.where(size > 0, apart / size, torch.nan)
    return Comparison(disagreement, second <= STRAIGHT * first, (first == 0) & (second == 0), highest)


def interior(images: Tensor, keys: Draws, step: float) -> Tensor:
    """Points near the images, two steps inside the box and moved by less than a step, so that no values of pixels are equal.

    At equal values, as in the background of digits, the maximum of several has no gradient.
    """
    inset = min(2 * step, 0.5)
    at = keys.at(step=torch.full_like(keys.step, DIRECTIONS))
    moved = step * (2 * at.uniform(images.shape[1:], dtype=images.dtype) - 1)
    return (images.clamp(inset, 1 - inset) + moved).clamp(0, 1)


def _in_float64(function: Slice, base: Tensor) -> tuple[Slice, Tensor]:
    """The function on a copy of the model in float64; as given if that fails or answers otherwise, or the model is randomised."""
    if function.draws > 1 or base.dtype == torch.float64:
        return function, base
    precise = base.double()
    try:
        copied = replace(function, model=copy.deepcopy(function.model).double())
        with torch.no_grad():
            given, made = (
                one.outputs(one.model, points, one.labels, 0) for one, points in ((function, base), (copied, precise))
            )
    except Exception:
        return function, base
    pairs = torch.stack([function.labels, function.rivals], 1)
    here, there = given.gather(1, pairs).double(), made.gather(1, pairs)
    same = there.dtype == torch.float64 and bool(((here - there).abs() <= _SAME * here.abs().amax()).all())
    return (copied, precise) if same else (function, base)


def _signs(keys: Draws, number: int, like: Tensor) -> Tensor:
    at = keys.at(step=torch.full_like(keys.step, number))
    return 2.0 * at.integers(2, like.shape[1:]).to(like.dtype) - 1


def _keys(keys: Draws, rows: Tensor) -> Draws:
    return Draws(keys.keys[rows], keys.restart[rows], keys.step[rows])


def _size(images: Tensor, norm: Norm) -> float:
    """The norm of a change of each pixel by 1."""
    pixels = float(images[0].numel())
    return {"Linf": 1.0, "L2": math.sqrt(pixels), "L1": pixels}[norm]


def _unit(gradient: Tensor, norm: Norm) -> Tensor:
    """A direction of unit length in the norm along the gradient: its sign for Linf, the gradient itself otherwise."""
    if norm == "Linf":
        return gradient.sign()
    size = torch.linalg.vector_norm(gradient.flatten(1).double(), ord=2 if norm == "L2" else 1, dim=1)
    return gradient / per_image(size.clamp_min(torch.finfo(torch.float64).tiny), gradient).to(gradient.dtype)
