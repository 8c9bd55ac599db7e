"""ReLU networks for the bounds and the exact solver, as stages of affine maps in float64 on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.nn.grad import conv2d_input

_UNDERFLOW = 2.0**-96
"""Upper bound of the error of a sum from products that underflow in float32."""
_OVERFLOW = 2.0**126


class UnsupportedModelError(ValueError):
    """No bound can be computed for this model; the message says why."""


@dataclass(frozen=True, eq=False)
class Affine:
    """x ↦ W x + bias on P flat vectors at a time, float64, without a matrix for W."""

    push: Callable[[Tensor], Tensor]
    """W x, (P, inputs) → (P, outputs)."""
    spread: Callable[[Tensor], Tensor]
    """|W| r, (P, inputs) → (P, outputs)."""
    pull: Callable[[Tensor], Tensor]
    """Rows times W, (P, outputs) → (P, inputs)."""
    bias: Tensor
    """(outputs,)."""
    constants: Tensor
    """(outputs,): sums of the absolute values of the terms of the bias."""
    rounding: float
    """Rounding of the model in this map: its error is at most this times (|W| |x| + constants)."""


@dataclass(frozen=True, eq=False)
class Network:
    """A ReLU network: stages of affine maps one after another, a ReLU between each two stages.

    A stage without maps is the identity. `widths`: the number of inputs of the first stage, and of outputs of each stage.
    """

    stages: tuple[tuple[Affine, ...], ...]
    widths: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, K) of flat images (N, D)."""
        return self.values(x)[-1]

    def values(self, x: Tensor) -> list[Tensor]:
        """The outputs of each stage for flat images (N, D): the inputs of each ReLU, then the logits."""
        values: list[Tensor] = []
        for k, stage in enumerate(self.stages):
            x = x.relu() if k else x
            for affine in stage:
                x = affine.push(x) + affine.bias
            values.append(x)
        return values


def forward_error(net: Network, highs: Sequence[Tensor]) -> Tensor:
    """Bounds of the difference between the model's logits and those of `net`, float64 (N, K), wherever `highs` hold.

    `highs`: upper bounds of the values of the images, (N, D), which are at least 0, and of the inputs of each ReLU. A running
    error analysis (Higham 2002, section 3.3): each map adds its rounding, times the absolute values of its terms, and propagates
    earlier errors by the absolute values of its weights. The error of a ReLU that stays 0 is 0. Infinite if float32 may overflow.

    The bounds of `gauntlet.defenses.certificates.ibp_crown_bounds` are computed in float64 by sums over the same paths; their
    error is included. A sum has at most as many terms as there are values in all layers, and the bounds of a layer depend on
    those of all layers before it, so that errors may double from layer to layer.
    """
    terms = sum(net.widths) + sum(len(affine.bias) + 32 for stage in net.stages for affine in stage)
    own = 2.0 ** (len(net.stages) - 52) * terms
    error, unsafe = torch.zeros_like(highs[0]), torch.zeros(len(highs[0]), dtype=torch.bool)
    for stage, high in zip(net.stages, highs, strict=True):
        error = torch.where(high + error > 0, error, 0.0)
        size = high.relu()
        for affine in stage:
            spread, error = affine.spread(torch.cat([size, error])).chunk(2)
            size = spread + affine.constants
            error = error + (affine.rounding + own) * (size + error) + _UNDERFLOW
            unsafe |= ~(size + error < _OVERFLOW).all(1)
    return (error * (1 + 1e-6)).masked_fill(unsafe[:, None], torch.inf)


def double(model: nn.Module) -> nn.Module:
    """A copy in float64, eval mode, on the CPU, without parameter gradients."""
    return copy.deepcopy(model).to("cpu", torch.float64).requires_grad_(False).eval()


def linear(weight: Tensor, bias: Tensor | None, rounding: float) -> Affine:
    """The map of a linear layer with `weight` (outputs, inputs)."""
    weight = as_double(weight)
    size, added = weight.abs(), _bias(bias, len(weight))
    return Affine(
        lambda x: x @ weight.T, lambda r: r @ size.T, lambda rows: rows @ weight, added, added.abs(), rounding
    )


def convolution(
    weight: Tensor,
    bias: Tensor | None,
    geometry: tuple[list[int], list[int], list[int], int],
    shapes: tuple[torch.Size, torch.Size],
    rounding: float,
) -> Affine:
    """The map of a convolution; `geometry`: stride, padding, dilation, groups; `shapes`: (C, H, W) before and after."""
    weight, (before, after) = as_double(weight), shapes
    size, (stride, padding, dilation, groups) = weight.abs(), geometry

    def push(x: Tensor, kernel: Tensor = weight) -> Tensor:
        return conv2d(x.view(-1, *before), kernel, None, stride, padding, dilation, groups).flatten(1)

    def pull(rows: Tensor) -> Tensor:
        gradient = rows.reshape(-1, *after)
        pulled = conv2d_input([len(rows), *before], weight, gradient, stride, padding, dilation, groups)  # type: ignore[no-untyped-call]
        return torch.as_tensor(pulled).flatten(1)

    added = _bias(bias, len(weight)).repeat_interleave(after[1:].numel())
    return Affine(push, lambda r: push(r, size), pull, added, added.abs(), rounding)


def diagonal(scale: Tensor, bias: Tensor, constants: Tensor, rounding: float) -> Affine:
    """An elementwise map; `scale`, `bias` and `constants` are (D,)."""
    scale = as_double(scale)
    size = scale.abs()
    return Affine(
        lambda x: x * scale,
        lambda r: r * size,
        lambda rows: rows * scale,
        as_double(bias),
        as_double(constants),
        rounding,
    )


def averages(function: Callable[[Tensor], Tensor], before: torch.Size, outputs: int, rounding: float) -> Affine:
    """The map of a linear function of images (N, *before) without negative weights, such as average pooling."""

    def push(x: Tensor) -> Tensor:
        return function(x.view(-1, *before)).flatten(1)

    def pull(rows: Tensor) -> Tensor:
        with torch.enable_grad():
            x = torch.zeros(len(rows), before.numel(), dtype=torch.float64, requires_grad=True)
            return torch.autograd.grad(push(x), x, rows)[0]

    zero = torch.zeros(outputs, dtype=torch.float64)
    return Affine(push, push, pull, zero, zero, rounding)


def as_double(tensor: Tensor) -> Tensor:
    """Convert to float64 on the CPU, without gradient."""
    return tensor.detach().to("cpu", torch.float64)


def _bias(bias: Tensor | None, count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.float64) if bias is None else as_double(bias)
