"""ReLU networks read from `nn.Sequential` for the bounds and the exact solver: affine maps in float64 on the CPU."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.nn.grad import conv2d_input


@dataclass(frozen=True, eq=False)
class Affine:
    """x ↦ W x + bias on flat vectors, with W never written out: P vectors at a time, float64."""

    push: Callable[[Tensor], Tensor]
    """W x, (P, inputs) → (P, outputs)."""
    spread: Callable[[Tensor], Tensor]
    """|W| r, (P, inputs) → (P, outputs)."""
    pull: Callable[[Tensor], Tensor]
    """Rows times W, (P, outputs) → (P, inputs)."""
    bias: Tensor
    """(outputs,)."""


@dataclass(frozen=True, eq=False)
class Network:
    """A ReLU network: stages of affine maps one after another, a ReLU between each two stages.

    A stage without maps is the identity. `widths`: numbers of inputs of the first stage and of outputs of each.
    """

    stages: tuple[tuple[Affine, ...], ...]
    widths: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, K) of flat images (N, D)."""
        for k, stage in enumerate(self.stages):
            x = x.relu() if k else x
            for affine in stage:
                x = affine.push(x) + affine.bias
        return x


def network(model: nn.Module, images: Tensor) -> Network:
    """Read the layers of `model` for images (N, …), and compare both on them.

    Raises ValueError for a layer that is not supported, and where the model computes something else than its layers say.
    """
    shape = tuple(images.shape[1:])
    stages: list[list[Affine]] = [[]]
    widths = [math.prod(shape)]
    for name, layer in _layers(model, ""):
        if isinstance(layer, nn.ReLU):
            widths.append(math.prod(shape))
            stages.append([])
        elif isinstance(layer, nn.Flatten):
            if layer.start_dim != 1 or layer.end_dim not in (-1, len(shape)):
                raise ValueError(f"layer {name} ({layer}) does not flatten whole samples: use nn.Flatten()")
            shape = (math.prod(shape),)
        elif isinstance(layer, nn.Linear):
            if shape != (layer.in_features,):
                raise ValueError(f"layer {name} ({layer}) is given shape {shape}: put nn.Flatten() before it")
            stages[-1].append(_linear(layer))
            shape = (layer.out_features,)
        elif isinstance(layer, nn.Conv2d):
            affine, shape = _convolution(name, layer, shape)
            stages[-1].append(affine)
        elif not isinstance(layer, nn.Identity | nn.Dropout):
            raise ValueError(
                f"layer {name} ({type(layer).__name__}) is not supported: give an nn.Sequential of Linear, Conv2d, ReLU, "
                "Flatten, Identity and Dropout, out of any wrapper (fold normalisations into the layers beside them)"
            )
    if len(shape) != 1 or shape[0] < 2:
        raise ValueError(f"the model gives shape {shape} a sample: logits (N, K) of at least 2 classes are needed")
    net = Network(tuple(map(tuple, stages)), (*widths, math.prod(shape)))
    _compare(net, model, images[:16])
    return net


def _layers(model: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    if not isinstance(model, nn.Sequential):
        yield path or "model", model
        return
    for name, child in model.named_children():
        yield from _layers(child, f"{path}.{name}" if path else name)


def double(model: nn.Module) -> nn.Module:
    """A copy in float64, eval mode, on the CPU, without parameter gradients."""
    return copy.deepcopy(model).to("cpu", torch.float64).requires_grad_(False).eval()


def _compare(net: Network, model: nn.Module, images: Tensor) -> None:
    # Catches hooks, subclasses with a forward of their own, and mistakes in the reading of layers.
    with torch.no_grad():
        read, true = net(images.flatten(1)), double(model)(images)
    if read.shape != true.shape or not torch.allclose(read, true, rtol=1e-9, atol=1e-9):
        raise ValueError(
            "the model computes something else than its layers, read as nn.Sequential, say: look for hooks, layers with a "
            "forward of their own, and weights that are not finite"
        )


def _linear(layer: nn.Linear) -> Affine:
    weight = layer.weight.detach().to("cpu", torch.float64)
    size, bias = weight.abs(), _bias(layer.bias, len(weight))
    return Affine(lambda x: x @ weight.T, lambda r: r @ size.T, lambda rows: rows @ weight, bias)


def _bias(bias: Tensor | None, count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.float64) if bias is None else bias.detach().to("cpu", torch.float64)


def _convolution(name: str, layer: nn.Conv2d, shape: tuple[int, ...]) -> tuple[Affine, tuple[int, ...]]:
    if len(shape) != 3 or shape[0] != layer.in_channels:
        raise ValueError(f"layer {name} ({layer}) is given shape {shape}: it needs ({layer.in_channels}, H, W)")
    padding = layer.padding
    if isinstance(padding, str):
        wanted = [
            d * (k - 1) if padding == "same" else 0 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)
        ]
        if any(one % 2 for one in wanted):
            raise ValueError(f"layer {name} ({layer}) pads unevenly: give its padding as numbers")
        padding = (wanted[0] // 2, wanted[1] // 2)
    if layer.padding_mode != "zeros" and any(padding):
        raise ValueError(f"layer {name} ({layer}) pads with {layer.padding_mode!r}: only zeros are supported")
    weight = layer.weight.detach().to("cpu", torch.float64)
    size = weight.abs()
    stride, dilation, groups = layer.stride, layer.dilation, layer.groups

    def push(x: Tensor, kernel: Tensor = weight) -> Tensor:
        return conv2d(x.view(-1, *shape), kernel, None, stride, padding, dilation, groups).flatten(1)

    sides = [
        (shape[1 + i] + 2 * padding[i] - dilation[i] * (layer.kernel_size[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)
    ]
    out = (layer.out_channels, *sides)

    def pull(rows: Tensor) -> Tensor:
        gradient = rows.view(-1, *out)
        found = conv2d_input([len(rows), *shape], weight, gradient, stride, padding, dilation, groups)  # type: ignore[no-untyped-call]
        return torch.as_tensor(found).flatten(1)

    bias = _bias(layer.bias, layer.out_channels).repeat_interleave(math.prod(sides))
    return Affine(push, lambda r: push(r, size), pull, bias), out
