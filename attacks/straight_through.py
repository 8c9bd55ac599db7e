"""Gradients through operations that have none: BPDA inside a model whose forward nobody has declared.

Athalye, Carlini and Wagner, "Obfuscated gradients give a false sense of security", ICML 2018, section 4.1: on the backward
pass an operation is replaced by a smooth one of about the same value, here by the identity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_STEPS: frozenset[Callable[..., Any]] = frozenset(
    getattr(where, name) for where in (torch, Tensor) for name in ("round", "floor", "ceil", "trunc", "fix", "sign")
)
_CUTS: frozenset[Callable[..., Any]] = frozenset({torch.detach, Tensor.detach})
_SATURATING: frozenset[Callable[..., Any]] = frozenset(
    {torch.softmax, Tensor.softmax, functional.softmax, torch.sigmoid, Tensor.sigmoid, torch.tanh, Tensor.tanh}
)


class _Identity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


def with_identity_gradient(x: Tensor, value: Tensor) -> Tensor:
    """`value`, of the shape and dtype of `x`, bit for bit; its gradient goes to `x` as if it were `x`."""
    result: Tensor = _Identity.apply(x, value)  # type: ignore[no-untyped-call]
    return result


class StraightThroughMode(TorchFunctionMode):
    """Within it, rounding, signs and `detach` pass gradients on unchanged, and so do saturating outputs.

    Values are those of the model, exactly. Saturating functions (softmax, sigmoid, tanh) are replaced only where they see a
    matrix (N, K), as at a classifier's end: attention layers keep their true gradient. Comparisons, indices, and code
    outside torch stay without gradient.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, and put the identity in the place of its gradient where it has none that is of use."""
        settings = kwargs or {}
        x = args[0] if args else settings.get("input")
        if not isinstance(x, Tensor) or not x.requires_grad or not torch.is_grad_enabled():
            return func(*args, **settings)
        if func in _CUTS:
            return x
        if func in _STEPS or (func in _SATURATING and x.dim() == 2):
            with torch.no_grad():
                value = func(*args, **settings)
            return with_identity_gradient(x, value)
        return func(*args, **settings)
