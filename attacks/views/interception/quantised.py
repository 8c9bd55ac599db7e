"""Layers of quantised networks: on the way back, the layer in floating point with the weights that are packed in it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gauntlet.attacks.views.interception.call import Call, Result
from gauntlet.attacks.views.interception.soft import Soft, as_numbers, with_identity_gradient

LAYERS = (
    *(
        "linear",
        "linear_relu",
        "linear_dynamic",
        "linear_relu_dynamic",
        "linear_dynamic_fp16",
        "linear_relu_dynamic_fp16",
    ),
    *(f"conv{size}d{more}" for size in (1, 2, 3) for more in ("", "_relu", "_dynamic")),
)
ARITHMETIC = ("add", "add_relu", "add_scalar", "mul", "mul_relu", "mul_scalar")
"""Names of the operations below `torch.ops.quantized`, some of which other operations share."""


def quantised_layer(call: Call) -> Result:
    """The layer without rounding; None for layers that are not quantised."""
    packed = call.given(1, "W_prepack" if "linear" in call.name else "packed_weight")
    if not isinstance(packed, torch.ScriptObject):
        return None
    return _beside(_float_layer(call.name, call.x, packed), call.value)


def quantised_arithmetic(call: Call) -> Result:
    """A sum or product of quantised tensors without rounding; None for others."""
    if not isinstance(call.value, Tensor) or not call.value.is_quantized:
        return None
    other = call.real(call.given(1, "other"))
    if isinstance(other, Tensor) and other.is_quantized:
        other = other.dequantize()
    made = call.x + other if call.name.startswith("add") else call.x * other
    return _beside(functional.relu(made) if "relu" in call.name else made, call.value)


def _beside(made: Tensor, value: Tensor) -> Result:
    if not value.is_quantized:
        return made
    return Soft(with_identity_gradient(made, as_numbers(value, made.dtype)))


def _float_layer(name: str, x: Tensor, packed: Any) -> Tensor:
    weight, bias = packed.unpack()
    weight = as_numbers(weight.detach(), x.dtype)
    bias = None if bias is None else bias.detach().to(x.dtype)
    if name.startswith("linear"):
        made = functional.linear(x, weight, bias)
    else:
        size = weight.dim() - 2
        convolve: Any = (functional.conv1d, functional.conv2d, functional.conv3d)[size - 1]
        # Packed layers of one dimension keep their settings for two.
        settings = [list(part())[-size:] for part in (packed.stride, packed.padding, packed.dilation)]
        made = convolve(x, weight, bias, *settings, packed.groups())
    return functional.relu(made) if "relu" in name else made
