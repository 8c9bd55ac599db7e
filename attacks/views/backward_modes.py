"""Other backward passes for a model: BPDA within an undeclared forward pass, and leaky ReLU units. Values stay bit for bit.

BPDA, Athalye, Carlini and Wagner, "Obfuscated gradients give a false sense of security", ICML 2018, section 4.1: on the backward
pass an operation is replaced by a smooth operation of about the same value. Here it is the identity for operations without a
useful gradient, and a leaky ReLU for ReLU units (Guo, Li and Chen, "Backpropagating linearly improves transferability of
adversarial examples", NeurIPS 2020, arXiv 2012.03528, use the identity): a unit that is off in most of the ball has no
gradient there, so that attacks do not see that it can be switched on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_STEPS: frozenset[Callable[..., Any]] = frozenset(
    getattr(where, name) for where in (torch, Tensor) for name in ("round", "floor", "ceil", "trunc", "fix", "sign")
)
_OUTSIDE: frozenset[Callable[..., Any]] = frozenset(getattr(Tensor, name) for name in ("numpy", "__array__"))
_CUTS: frozenset[Callable[..., Any]] = frozenset({torch.detach, Tensor.detach})
_SATURATING: frozenset[Callable[..., Any]] = frozenset(
    {torch.softmax, Tensor.softmax, functional.softmax, torch.sigmoid, Tensor.sigmoid, torch.tanh, Tensor.tanh}
)
_RELU: frozenset[Callable[..., Any]] = frozenset(
    {torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu, functional.relu_}
)

_IN_PLACE: frozenset[Callable[..., Any]] = frozenset({torch.relu_, Tensor.relu_, functional.relu_})

Backward: TypeAlias = Literal["true", "through", "leaky"]
"""The model's own gradients, `StraightThroughMode`, or `LeakyMode`."""


class _Identity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


def with_identity_gradient(x: Tensor, value: Tensor) -> Tensor:
    """`value`, with the shape and dtype of `x`, bit for bit; its gradient passes to `x` unchanged."""
    result: Tensor = _Identity.apply(x, value)  # type: ignore[no-untyped-call]
    return result


class StraightThroughMode(TorchFunctionMode):
    """Within this mode rounding, signs, `detach` and saturating outputs pass gradients on unchanged.

    Values are exactly those of the model. Saturating functions (softmax, sigmoid, tanh) are replaced only on a matrix (N, K), as
    at the end of a classifier: attention layers keep their true gradient. Comparisons, indices and code outside torch stay
    without gradient.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, with the identity in place of its gradient if that is of no use."""
        settings = kwargs or {}
        x = args[0] if args else settings.get("input")
        if not isinstance(x, Tensor) or not x.requires_grad or not torch.is_grad_enabled():
            return func(*args, **settings)
        if func in _OUTSIDE:
            # Code outside torch has no gradient, and `detach`, which is the identity below, must work for it.
            return func(x.detach(), *args[1:], **settings)
        if func in _CUTS:
            return x
        if func in _STEPS or (func in _SATURATING and x.dim() == 2):
            with torch.no_grad():
                value = func(*args, **settings)
            return with_identity_gradient(x, value)
        return func(*args, **settings)


class _Leaky(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(x > 0)
        ctx.slope = slope  # type: ignore[attr-defined]
        return torch.relu(x)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (on,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return torch.where(on, gradient, gradient * ctx.slope), None  # type: ignore[attr-defined]


class LeakyMode(TorchFunctionMode):
    """Within this mode ReLU units that are off pass on the share `slope` of the gradient."""

    def __init__(self, slope: float = 0.5) -> None:
        """0.5 broke most samples in measurements on small networks (docs/attacks.md)."""
        super().__init__()
        self.slope = slope

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, or the leaky ReLU in place of a ReLU."""
        settings = kwargs or {}
        if func in _RELU and torch.is_grad_enabled():
            x: Tensor = args[0] if args else settings["input"]
            result = _Leaky.apply(x, self.slope)  # type: ignore[no-untyped-call]
            in_place = func in _IN_PLACE or settings.get("inplace") or args[1:2] == (True,)
            return x.copy_(result) if in_place else result
        return func(*args, **settings)


def backward_mode(kind: Backward) -> AbstractContextManager[object]:
    """The context for the model's forward pass."""
    if kind == "through":
        return StraightThroughMode()
    return LeakyMode() if kind == "leaky" else nullcontext()
