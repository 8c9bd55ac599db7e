"""ONNX operators of image classifiers in torch, as https://onnx.ai/onnx/operators/ defines them.

An operator is a function from a call (inputs, attributes, version) to its output, or a list of outputs. Other operators and
unsupported attributes raise NotImplementedError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from gauntlet.bench.models.sources.onnx_call import OnnxCall
from gauntlet.bench.models.sources.onnx_shapes import (
    constant_of_shape,
    depth_to_space,
    expand,
    flatten,
    gather,
    gather_elements,
    pad,
    range_of,
    reshape,
    shape_of,
    slice_of,
    split,
    squeeze,
    unsqueeze,
)
from gauntlet.bench.models.sources.onnx_windows import average_pool, convolution, max_pool, transposed_convolution

Operator: TypeAlias = Callable[[OnnxCall], "Tensor | list[Tensor]"]


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _mod(call: OnnxCall) -> Tensor:
    return torch.fmod(call[0], call[1]) if call.get("fmod", 0) else torch.remainder(call[0], call[1])


def _gemm(call: OnnxCall) -> Tensor:
    a = call[0].t() if call.get("transA", 0) else call[0]
    b = call[1].t() if call.get("transB", 0) else call[1]
    added = call.optional(2)
    if added is None:
        return (a @ b) * float(call.get("alpha", 1.0))
    return torch.addmm(added, a, b, beta=call.get("beta", 1.0), alpha=call.get("alpha", 1.0))


def _softmax(call: OnnxCall, function: Callable[..., Tensor]) -> Tensor:
    x = call[0]
    if call.opset >= 13:
        return function(x, dim=call.get("axis", -1))
    axis = call.get("axis", 1) % x.ndim
    return function(x.flatten(axis), dim=-1).view_as(x) if axis else function(x.flatten(), dim=0).view_as(x)


def _batch_norm(call: OnnxCall) -> Tensor:
    if call.get("training_mode", 0) or (call.outputs > 1 and call.opset >= 14):
        raise NotImplementedError("BatchNormalization in training mode")
    x, scale, shift, mean, variance = (call[place] for place in range(5))
    return functional.batch_norm(x, mean, variance, scale, shift, False, 0.0, call.get("epsilon", 1e-5))


def _layer_norm(call: OnnxCall) -> Tensor:
    if call.outputs > 1:
        raise NotImplementedError("LayerNormalization with its statistics as outputs")
    x = call[0]
    shape = x.shape[call.get("axis", -1) % x.ndim :]
    scale, shift = call[1].expand(shape), call.optional(2)
    return functional.layer_norm(
        x, shape, scale, None if shift is None else shift.expand(shape), call.get("epsilon", 1e-5)
    )


def _group_norm(call: OnnxCall) -> Tensor:
    x, groups, scale, shift = call[0], call.get("num_groups"), call[1], call[2]
    if call.opset < 21:
        # Until then, one scale and one shift for a group.
        scale, shift = (parameter.repeat_interleave(x.shape[1] // groups) for parameter in (scale, shift))
    return functional.group_norm(x, groups, scale, shift, call.get("epsilon", 1e-5))


def _reduce(call: OnnxCall, function: Callable[..., Tensor]) -> Tensor:
    axes = call.numbers(1, "axes")
    if not axes and call.get("noop_with_empty_axes", 0):
        return call[0]
    return function(call[0], dim=tuple(axes or range(call[0].ndim)), keepdim=bool(call.get("keepdims", 1)))


def _clip(call: OnnxCall) -> Tensor:
    x = call[0]
    low, high = (call.optional(place) for place in (1, 2))
    least = call.get("min") if low is None else low
    most = call.get("max") if high is None else high
    x = x if least is None else torch.maximum(x, torch.as_tensor(least).to(x))
    return x if most is None else torch.minimum(x, torch.as_tensor(most).to(x))


def _resize(call: OnnxCall) -> Tensor:
    x, mode = call[0], call.get("mode", "nearest")
    older = call.operator == "Upsample" or call.opset < 11
    scales = call.optional(1) if older else call.optional(2)
    sizes = None if older else call.numbers(3, "sizes")
    way = "asymmetric" if older else call.get("coordinate_transformation_mode", "half_pixel")
    plain = (call.get("nearest_mode", "round_prefer_floor") == "floor" or older) and way == "asymmetric"
    smooth = mode in ("linear", "cubic") and way in ("half_pixel", "pytorch_half_pixel", "align_corners")
    if x.ndim != 4 or call.get("axes") or not (plain if mode == "nearest" else smooth):
        raise NotImplementedError(f"{call.operator} with mode={mode}, coordinate_transformation_mode={way}")
    if sizes is not None:
        size = sizes[-2:]
    elif scales is not None:
        size = [int(x.shape[axis] * scales.tolist()[axis]) for axis in (2, 3)]
    else:
        raise NotImplementedError(f"{call.operator} without scales and sizes")
    if mode == "nearest":
        return functional.interpolate(x, size=size, mode="nearest")
    kernel = {"linear": "bilinear", "cubic": "bicubic"}[mode]
    return functional.interpolate(x, size=size, mode=kernel, align_corners=way == "align_corners")


def _cast(call: OnnxCall) -> Tensor:
    kind = call.get("to")
    if kind not in _TYPES:
        raise NotImplementedError(f"Cast to ONNX's type {kind}")
    return call[0].to(_TYPES[kind])


def _instance_norm(call: OnnxCall) -> Tensor:
    return functional.instance_norm(call[0], weight=call[1], bias=call[2], eps=call.get("epsilon", 1e-5))


def _response_norm(call: OnnxCall) -> Tensor:
    size, alpha, beta, bias = call.get("size"), call.get("alpha", 1e-4), call.get("beta", 0.75), call.get("bias", 1.0)
    return functional.local_response_norm(call[0], size, alpha=alpha, beta=beta, k=bias)


def _argmax(call: OnnxCall) -> Tensor:
    if call.get("select_last_index", 0):
        raise NotImplementedError("ArgMax with select_last_index")
    return call[0].argmax(call.get("axis", 0), keepdim=bool(call.get("keepdims", 1)))


def _hard_sigmoid(call: OnnxCall) -> Tensor:
    slope, shift = float(call.get("alpha", 0.2)), float(call.get("beta", 0.5))
    return (slope * call[0] + shift).clamp(0, 1)


def _product(x: Tensor, dim: tuple[int, ...], keepdim: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in dim), reverse=True):
        x = x.prod(axis, keepdim=keepdim)
    return x


_SELU = (1.67326319217681884765625, 1.05070102214813232421875)
_TYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float64}
"""Torch dtypes of the ONNX element types."""

_UNARY: Mapping[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "GlobalAveragePool": lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "GlobalMaxPool": lambda x: x.amax(tuple(range(2, x.ndim)), keepdim=True),
    "HardSwish": functional.hardswish,
    "Identity": lambda x: x,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": functional.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": functional.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softplus": functional.softplus,
    "Softsign": functional.softsign,
    "Sqrt": torch.sqrt,
    "Tanh": torch.tanh,
}
_BINARY: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "And": torch.logical_and,
    "Div": _divide,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "MatMul": torch.matmul,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "PRelu": lambda x, slope: torch.where(x < 0, slope * x, x),
    "Pow": lambda x, power: torch.pow(x, power.to(x.dtype)),
    "Sub": torch.sub,
}
_MANY: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"Max": torch.maximum, "Min": torch.minimum, "Sum": torch.add}
_REDUCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "ReduceL1": partial(torch.linalg.vector_norm, ord=1),
    "ReduceL2": torch.linalg.vector_norm,
    "ReduceLogSumExp": torch.logsumexp,
    "ReduceMax": torch.amax,
    "ReduceMean": torch.mean,
    "ReduceMin": torch.amin,
    "ReduceProd": _product,
    "ReduceSum": torch.sum,
    "ReduceSumSquare": lambda x, **where: x.square().sum(**where),
}


def _on_one(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda call: function(call[0])


def _on_two(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda call: function(call[0], call[1])


def _on_all(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda call: reduce(function, (call[place] for place in range(len(call.inputs))))


OPERATORS: Mapping[str, Operator] = {
    **{name: _on_one(function) for name, function in _UNARY.items()},
    **{name: _on_two(function) for name, function in _BINARY.items()},
    **{name: _on_all(function) for name, function in _MANY.items()},
    **{name: partial(_reduce, function=function) for name, function in _REDUCTIONS.items()},
    "ArgMax": _argmax,
    "AveragePool": lambda call: average_pool(call[0], call.get),
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "CastLike": lambda call: call[0].to(call[1].dtype),
    "Celu": lambda call: functional.celu(call[0], call.get("alpha", 1.0)),
    "Clip": _clip,
    "Concat": lambda call: torch.cat([call[place] for place in range(len(call.inputs))], call.get("axis")),
    "ConstantOfShape": constant_of_shape,
    "Conv": lambda call: convolution(call[0], call[1], call.optional(2), call.get),
    "ConvTranspose": lambda call: transposed_convolution(call[0], call[1], call.optional(2), call.get),
    "DepthToSpace": depth_to_space,
    "Dropout": lambda call: call[0],
    "Einsum": lambda call: torch.einsum(call.get("equation"), *(call[place] for place in range(len(call.inputs)))),
    "Elu": lambda call: functional.elu(call[0], call.get("alpha", 1.0)),
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "GatherElements": gather_elements,
    "Gelu": lambda call: functional.gelu(call[0], approximate=call.get("approximate", "none")),
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "HardSigmoid": _hard_sigmoid,
    "InstanceNormalization": _instance_norm,
    "LRN": _response_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda call: functional.leaky_relu(call[0], call.get("alpha", 0.01)),
    "LogSoftmax": partial(_softmax, function=torch.log_softmax),
    "LpNormalization": lambda call: functional.normalize(call[0], p=call.get("p", 2), dim=call.get("axis", -1), eps=0),
    "MaxPool": lambda call: max_pool(call[0], call.get),
    "Mean": lambda call: torch.stack(torch.broadcast_tensors(*map(call.__getitem__, range(len(call.inputs))))).mean(0),
    "Mod": _mod,
    "Pad": pad,
    "Range": range_of,
    "Reshape": reshape,
    "Resize": _resize,
    "Selu": lambda call: call.get("gamma", _SELU[1]) * functional.elu(call[0], call.get("alpha", _SELU[0])),
    "Shape": shape_of,
    "Slice": slice_of,
    "Softmax": partial(_softmax, function=torch.softmax),
    "Split": split,
    "Squeeze": squeeze,
    "Tile": lambda call: call[0].repeat([int(times) for times in call[1].tolist()]),
    "Transpose": lambda call: call[0].permute(call.get("perm", list(range(call[0].ndim))[::-1])),
    "Unsqueeze": unsqueeze,
    "Upsample": _resize,
    "Where": lambda call: torch.where(call[0], call[1], call[2]),
}
