"""Differentiable stand-ins for tensors that have no gradient: masks, counts and indices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx


class _Identity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


_apply = _Identity.apply
"""Bound now: `apply` of all functions is replaced while a pass is intercepted."""


def with_identity_gradient(x: Tensor, value: Tensor) -> Tensor:
    """`value`, with the shape and dtype of `x`, bit for bit; its gradient passes to `x` unchanged."""
    result: Tensor = _apply(x, value)  # type: ignore[no-untyped-call]
    return result


def as_numbers(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The values of a tensor, also of a quantised one, in `dtype`."""
    return (value.dequantize() if value.is_quantized else value).to(dtype)


@dataclass(frozen=True, eq=False)
class Soft:
    """What a tensor without gradient would be if it had one."""

    number: Tensor
    """Of the same shape, floating: exactly the tensor's values, with the gradient of a smooth function."""
    classes: Tensor | None = None
    """Of an index into K entries: its weight on each of them, (…, K)."""
    order: tuple[Tensor, int] | None = None
    """Of the indices of the largest entries: the ranked tensor, and along which dimension."""


def spread(values: Tensor, batch: int) -> Tensor:
    """The mean size of `values` for each sample, so that it broadcasts: along the dimension of length `batch`, if there is one.

    Where none is, the first is taken to hold several rows for each sample if `batch` divides it; else the mean is over all.
    """
    size = values.detach().abs()
    least = torch.finfo(size.dtype).tiny
    if batch == 1 or not size.dim():
        return size.mean().clamp_min(least)
    if batch in size.shape:
        kept = size.shape.index(batch)
        others = [dim for dim in range(size.dim()) if dim != kept]
        return (size.mean(others, keepdim=True) if others else size).clamp_min(least)
    if size.shape[0] % batch == 0:
        rows = size.reshape(batch, -1).mean(1).clamp_min(least).repeat_interleave(size.shape[0] // batch)
        return rows.view(-1, *[1] * (size.dim() - 1))
    return size.mean().clamp_min(least)


def step(distance: Tensor, value: Tensor, batch: int, width: float) -> Tensor:
    """The truth `value` of `distance` > 0 as a number, with the gradient of a sigmoid as wide as `width` times the spread."""
    smooth = torch.sigmoid(distance / (width * spread(distance, batch)))
    return with_identity_gradient(smooth, value.detach().to(smooth.dtype))


def equal(distance: Tensor, value: Tensor, batch: int, width: float) -> Tensor:
    """The truth `value` of `distance` = 0 as a number, with the gradient of a bump."""
    smooth = 1 - torch.tanh(distance / (width * spread(distance, batch))).square()
    return with_identity_gradient(smooth, value.to(smooth.dtype))


def largest(scores: Tensor, index: Tensor, width: float) -> Soft:
    """The index of the largest of `scores` (…, K): weights by a softmax as wide as `width` times the deviation of the scores."""
    wide = (width * scores.detach().std(-1, keepdim=True, correction=0)).clamp_min(torch.finfo(scores.dtype).tiny)
    weights = torch.softmax(scores / wide, -1)
    return Soft(expected(weights, index), weights)


def expected(weights: Tensor, index: Tensor) -> Tensor:
    """`index` as a number, with the gradient of its expectation under `weights` (…, K)."""
    places = torch.arange(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    return with_identity_gradient((weights * places).sum(-1), index.to(weights.dtype))


def weights_of(soft: Soft, classes: int, width: float) -> Tensor:
    """The weight of an index on each of `classes` entries, (…, K); of an index that is a mere number, those of its neighbours."""
    if soft.classes is not None and soft.classes.shape[-1] <= classes:
        missing = classes - soft.classes.shape[-1]
        return torch.nn.functional.pad(soft.classes, (0, missing))
    places = torch.arange(classes, dtype=soft.number.dtype, device=soft.number.device)
    return torch.softmax(-(soft.number[..., None] - places).square() / width, -1)
