"""ONNX operators that change shapes, not values: reshaping, slicing, padding, repeating."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from gauntlet.bench.models.sources.onnx_call import OnnxCall


def reshape(call: OnnxCall) -> Tensor:
    """A size of 0 keeps the input's size, unless `allowzero` is set."""
    x, shape = call[0], call.numbers(1, "shape") or []
    if not call.get("allowzero", 0):
        shape = [x.shape[place] if size == 0 else size for place, size in enumerate(shape)]
    return x.reshape(tuple(shape))


def flatten(call: OnnxCall) -> Tensor:
    """Flatten to two dimensions."""
    x = call[0]
    axis = call.get("axis", 1)
    return x.reshape(math.prod(x.shape[: axis % x.ndim if axis < 0 else axis]), -1)


def slice_of(call: OnnxCall) -> Tensor:
    """Slice along axes; steps may be negative."""
    x = call[0]
    starts, ends = call.numbers(1, "starts") or [], call.numbers(2, "ends") or []
    axes = call.numbers(3, "axes") or list(range(len(starts)))
    steps = call.numbers(4, "steps") or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        taken = range(*slice(start, end, step).indices(x.shape[axis]))
        if step == 1:
            x = x.narrow(axis, taken.start, len(taken)) if len(taken) else x.narrow(axis, 0, 0)
        else:
            x = x.index_select(axis, torch.tensor(taken, dtype=torch.int64, device=x.device))
    return x


def gather(call: OnnxCall) -> Tensor:
    """Select entries along an axis."""
    x, places = call[0], call[1]
    axis = call.get("axis", 0) % x.ndim
    places = torch.where(places < 0, places + x.shape[axis], places).to(torch.int64)
    taken = x.index_select(axis, places.reshape(-1))
    return taken.reshape((*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]))


def gather_elements(call: OnnxCall) -> Tensor:
    """Like torch.gather, with negative indices from the end."""
    x, places, axis = call[0], call[1], call.get("axis", 0)
    return x.gather(axis, torch.where(places < 0, places + x.shape[axis], places))


def split(call: OnnxCall) -> list[Tensor]:
    """Split along an axis, by sizes or into equal parts."""
    x, axis = call[0], call.get("axis", 0)
    sizes = call.numbers(1, "split")
    if sizes is None:
        size = -(-x.shape[axis] // call.get("num_outputs", call.outputs))
        return list(x.split(size, axis))
    return list(x.split(sizes, axis))


def squeeze(call: OnnxCall) -> Tensor:
    """Remove axes of size 1."""
    x, axes = call[0], call.numbers(1, "axes")
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def unsqueeze(call: OnnxCall) -> Tensor:
    """Add axes of size 1."""
    x, axes = call[0], call.numbers(1, "axes") or []
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def shape_of(call: OnnxCall) -> Tensor:
    """The shape as whole numbers, on the CPU."""
    return torch.tensor(call[0].shape[call.get("start", 0) : call.get("end")], dtype=torch.int64)


def constant_of_shape(call: OnnxCall) -> Tensor:
    """A tensor of one value."""
    value = call.get("value")
    filling = torch.zeros(1) if value is None else value
    return filling.reshape(()).expand([int(size) for size in call[0].tolist()]).clone()


def range_of(call: OnnxCall) -> Tensor:
    """A range from start, end and step."""
    start, end, step = (call[place] for place in range(3))
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def expand(call: OnnxCall) -> Tensor:
    """Broadcast to a shape."""
    shape = torch.broadcast_shapes(call[0].shape, [int(size) for size in call[1].tolist()])
    return call[0].expand(shape)


def pad(call: OnnxCall) -> Tensor:
    """Pad with a constant, or by repeating or reflecting values."""
    x, pads = call[0], call.numbers(1, "pads") or []
    axes = call.numbers(3, "axes") or list(range(x.ndim))
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}[
        call.get("mode", "constant")
    ]
    each = {axis % x.ndim: (pads[place], pads[place + len(axes)]) for place, axis in enumerate(axes)}
    # torch counts from the last dimension, and other modes than constant want all behind the channels.
    first = min((axis for axis, sizes in each.items() if any(sizes)), default=x.ndim)
    first = first if mode == "constant" else min(first, 2)
    sizes = [size for axis in range(x.ndim - 1, first - 1, -1) for size in each.get(axis, (0, 0))]
    if not sizes:
        return x
    filling = call.optional(2)
    value = float(filling) if filling is not None and filling.numel() else float(call.get("value", 0.0))
    return functional.pad(x, sizes, mode, value) if mode == "constant" else functional.pad(x, sizes, mode)


def depth_to_space(call: OnnxCall) -> Tensor:
    """Rearrange channels into blocks of pixels."""
    if call.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(call[0], call.get("blocksize"))
    x, size = call[0], call.get("blocksize")
    n, channels, height, width = x.shape
    blocks = x.reshape(n, size, size, channels // size**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, channels // size**2, height * size, width * size)
