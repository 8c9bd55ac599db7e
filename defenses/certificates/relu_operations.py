"""Affine maps of ATen operations: from the arguments of an operation to `Affine`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gauntlet.defenses.certificates.relu_network import (
    Affine,
    UnsupportedModelError,
    as_double,
    averages,
    convolution,
    diagonal,
    linear,
)

UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
"""The relative error of a rounding, by dtype."""


class AtenCall:
    """A call of an operation other than ReLU that does not mix samples."""

    def __init__(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        x: Tensor,
        before: torch.Size,
        after: torch.Size,
        dtype: torch.dtype,
    ) -> None:
        self.name, self.args, self.kwargs, self.x = name, list(args), kwargs, x
        self.before, self.after, self.dtype = before, after, dtype

    def rounding(self, terms: int, *, product: bool = False) -> float:
        """The relative error after a number of successive roundings (Higham 2002, lemma 3.1)."""
        unit, more = UNIT[self.dtype], 0.0
        if product and self.dtype == torch.float32:
            unit, more = _product_rounding(self.x.device, unit)
        total = terms * unit
        return total / (1 - total) + more if total < 0.5 else torch.inf

    def refuse(self, why: str) -> UnsupportedModelError:
        """The error for an unsupported call: `why` follows the name of the operation."""
        return UnsupportedModelError(f"the model's {self.name} {why}")

    def constant(self, value: Tensor | float) -> Tensor:
        """A constant for each value of a sample, (D,)."""
        value = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
        if value.ndim > len(self.before) and value.shape[0] != 1:
            raise self.refuse("takes other constants for each sample")
        return as_double(value).expand(1, *self.before).flatten()


def _product_rounding(device: torch.device, unit: float) -> tuple[float, float]:
    """The rounding unit of sums, and the error from rounded factors, if float32 products may use lower precision."""
    precision = torch.get_float32_matmul_precision()
    if precision == "medium":
        return 2 * unit, 2.0**-6
    if precision == "high" or (
        device.type == "cuda" and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
    ):
        return 2 * unit, 2.0**-9
    return unit, 0.0


def _matrix_product(call: AtenCall) -> Affine:
    args = call.args
    bias, x, weight = (None, *args) if call.name == "mm" else args[:3]
    if x is not call.x or any(value != 1 for value in call.kwargs.values()):
        raise call.refuse("is no linear layer")
    if bias is not None and bias.ndim > 1 and len(bias) != 1:
        raise call.refuse("adds other constants for each sample")
    added = None if bias is None else bias.expand(1, weight.shape[1])[0]
    return linear(weight.T, added, call.rounding(len(weight) + 1, product=True))


def _convolution(call: AtenCall) -> Affine:
    x, weight, bias, stride, padding, dilation, transposed, _, groups = call.args
    if x is not call.x or transposed or weight.ndim != 4:
        raise call.refuse("is not a convolution in two dimensions over the images")
    rounding = call.rounding(weight[0].numel() + 1, product=True)
    return convolution(weight, bias, (stride, padding, dilation, groups), (call.before, call.after), rounding)


def _batch_norm(call: AtenCall) -> Affine:
    _, scale, shift, mean, variance = call.args[:5]
    if call.name != "_native_batch_norm_legit_no_training" and call.args[5]:
        raise call.refuse("takes the statistics of the batch: call model.eval()")
    slope = 1 / (as_double(variance) + call.args[-1]).sqrt()
    slope = slope if scale is None else slope * as_double(scale)
    moved, added = slope * as_double(mean), torch.zeros_like(slope) if shift is None else as_double(shift)
    values = call.before[1:].numel()
    # Nine successive roundings; square roots and quotients on GPUs have an error of two units.
    return diagonal(
        slope.repeat_interleave(values),
        (added - moved).repeat_interleave(values),
        (added.abs() + moved.abs()).repeat_interleave(values),
        call.rounding(16),
    )


def _arithmetic(call: AtenCall) -> Affine:
    """x + c, x - c, c - x, x · c, x / c and -x."""
    name = call.name.rstrip("_")
    scale, shift = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    if call.after != call.before:
        raise call.refuse("spreads a sample by constants of a larger shape")
    if name == "neg":
        scale = -scale
    else:
        first, second, *more = call.args
        other, alpha = (second if first is call.x else first), (more or [call.kwargs.get("alpha", 1)])[0]
        if (first is not call.x and name == "div") or call.kwargs.get("rounding_mode"):
            raise call.refuse("is not a division by a constant")
        if alpha != 1:
            raise call.refuse(f"has alpha={alpha}: only 1 is supported")
        value = call.constant(other)
        if name in ("add", "sub", "rsub"):
            shift = -value if name == "sub" and first is call.x else value
            scale = -scale if name == "rsub" or (name == "sub" and first is not call.x) else scale
        else:
            scale = 1 / value if name == "div" else value
    size = call.before.numel()
    shift = shift.expand(size)
    return diagonal(scale.expand(size), shift, shift.abs(), call.rounding(3))


def _cast(call: AtenCall) -> Affine:
    ones = torch.ones(call.before.numel(), dtype=torch.float64)
    return diagonal(ones, 0 * ones, 0 * ones, call.rounding(1))


def _selection(call: AtenCall) -> Affine:
    """Some of the values of a sample, in another order."""
    x, axis, index = call.args
    if x is not call.x or len(call.before) != 1 or axis % x.ndim == 0:
        raise call.refuse("takes some of the samples, or parts of images")
    return linear(torch.eye(call.before.numel(), dtype=torch.float64)[index.cpu()], None, 0.0)


def _average(call: AtenCall) -> Affine:
    """Average pooling, the mean over trailing axes, and padding with zeros."""
    function = {
        "avg_pool2d": torch.ops.aten.avg_pool2d,
        "_adaptive_avg_pool2d": torch.ops.aten._adaptive_avg_pool2d,
        "mean": torch.ops.aten.mean,
        "constant_pad_nd": torch.ops.aten.constant_pad_nd,
    }[call.name]
    rest, options = call.args[1:], {key: value for key, value in call.kwargs.items() if key != "dtype"}
    if call.name == "mean" and (not rest or any(axis % call.x.ndim == 0 for axis in rest[0])):
        raise call.refuse("is taken across samples")
    if call.name == "constant_pad_nd" and (len(rest[0]) > 2 * len(call.before) or any(rest[1:])):
        raise call.refuse("pads with other numbers than 0, or pads the batch")
    if call.name == "avg_pool2d" and any(divisor is not None and divisor < 0 for divisor in rest[5:]):
        raise call.refuse("has a divisor below 0")
    terms = math.prod(rest[0]) ** (2 // len(rest[0])) if call.name == "avg_pool2d" else call.before.numel()
    return averages(lambda x: function(x, *rest, **options), call.before, call.after.numel(), call.rounding(terms + 2))


READERS: dict[str, Callable[[AtenCall], Affine]] = {
    **dict.fromkeys(("addmm", "mm"), _matrix_product),
    "convolution": _convolution,
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"), _batch_norm),
    **dict.fromkeys((name + place for name in ("add", "sub", "mul", "div", "neg") for place in ("", "_")), _arithmetic),
    "rsub": _arithmetic,
    "index_select": _selection,
    "_to_copy": _cast,
    **dict.fromkeys(("avg_pool2d", "_adaptive_avg_pool2d", "mean", "constant_pad_nd"), _average),
}
"""By name of the operation, without the overload."""
