"""Convolution and pooling as ONNX defines them, with asymmetric and automatic padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

Get: TypeAlias = Callable[..., Any]
"""Returns an attribute by name, or a default."""

_CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)
_MAXIMA = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
_MEANS = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, get: Get) -> Tensor:
    """Convolution of (N, C, …) with a weight (M, C / group, …)."""
    kernel = list(weight.shape[2:])
    strides, dilations = _each(get, "strides", kernel), _each(get, "dilations", kernel)
    before, after = _padding(x.shape[2:], kernel, strides, dilations, get)
    if before != after:
        x, before = _padded(x, before, after, 0.0), [0] * len(kernel)
    convolve = _CONVOLUTIONS[len(kernel) - 1]
    output: Tensor = convolve(x, weight, bias, strides, before, dilations, get("group", 1))
    return output


def transposed_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, get: Get) -> Tensor:
    """Transposed convolution of (N, C, …) with a weight (C, M / group, …)."""
    kernel = list(weight.shape[2:])
    strides, dilations = _each(get, "strides", kernel), _each(get, "dilations", kernel)
    pads = get("pads", [0] * 2 * len(kernel))
    before, after = list(pads[: len(kernel)]), list(pads[len(kernel) :])
    if before != after or get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or get("output_shape"):
        raise NotImplementedError("ConvTranspose with padding that differs between the sides")
    more = get("output_padding", [0] * len(kernel))
    convolve = _TRANSPOSED[len(kernel) - 1]
    output: Tensor = convolve(x, weight, bias, strides, before, more, get("group", 1), dilations)
    return output


def max_pool(x: Tensor, get: Get) -> Tensor:
    """Max pooling of (N, C, …); padding is never the maximum."""
    kernel = list(get("kernel_shape"))
    strides, dilations = _each(get, "strides", kernel), _each(get, "dilations", kernel)
    before, after = _padding(x.shape[2:], kernel, strides, dilations, get)
    if before != after or any(2 * pad > size for pad, size in zip(before, kernel, strict=True)):
        x, before = _padded(x, before, after, -torch.inf), [0] * len(kernel)
    pool = _MAXIMA[len(kernel) - 1]
    output: Tensor = pool(x, kernel, strides, before, dilations, bool(get("ceil_mode", 0)))
    return output


def average_pool(x: Tensor, get: Get) -> Tensor:
    """Average pooling of (N, C, …); padding counts if `count_include_pad` is set."""
    kernel = list(get("kernel_shape"))
    strides, dilations = _each(get, "strides", kernel), _each(get, "dilations", kernel)
    if any(dilation != 1 for dilation in dilations):
        raise NotImplementedError("AveragePool with dilations")
    before, after = _padding(x.shape[2:], kernel, strides, dilations, get)
    pool, ceil, counted = _MEANS[len(kernel) - 1], bool(get("ceil_mode", 0)), bool(get("count_include_pad", 0))
    if before == after and all(2 * pad <= size for pad, size in zip(before, kernel, strict=True)):
        output: Tensor = pool(x, kernel, strides, before, ceil, counted)
        return output
    nothing = [0] * len(kernel)
    mean: Tensor = pool(_padded(x, before, after, 0.0), kernel, strides, nothing, ceil)
    if counted:
        return mean
    there: Tensor = pool(_padded(torch.ones_like(x[:1, :1]), before, after, 0.0), kernel, strides, nothing, ceil)
    return mean / there


def _each(get: Get, name: str, kernel: Sequence[int]) -> list[int]:
    return list(get(name, [1] * len(kernel)))


def _padding(
    size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], get: Get
) -> tuple[list[int], list[int]]:
    """The padding before and after each dimension."""
    way = get("auto_pad", "NOTSET")
    if way in ("NOTSET", "VALID"):
        pads = get("pads", [0] * 2 * len(kernel)) if way == "NOTSET" else [0] * 2 * len(kernel)
        return list(pads[: len(kernel)]), list(pads[len(kernel) :])
    before, after = [], []
    for length, width, stride, dilation in zip(size, kernel, strides, dilations, strict=True):
        total = max(0, (-(-length // stride) - 1) * stride + (width - 1) * dilation + 1 - length)
        small, large = total // 2, total - total // 2
        before.append(large if way == "SAME_LOWER" else small)
        after.append(small if way == "SAME_LOWER" else large)
    return before, after


def _padded(x: Tensor, before: Sequence[int], after: Sequence[int], value: float) -> Tensor:
    sizes = [size for pair in zip(reversed(before), reversed(after), strict=True) for size in pair]
    return functional.pad(x, sizes, "constant", value)
