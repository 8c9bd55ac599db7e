"""Other backward passes for a model: BPDA within an undeclared forward pass, and leaky ReLU units. Values stay bit for bit.

A leaky ReLU stands in for ReLU units (Guo, Li and Chen, "Backpropagating linearly improves transferability of adversarial
examples", NeurIPS 2020, arXiv 2012.03528, use the identity): a unit that is off in most of the ball has no gradient there, so
that attacks do not see that it can be switched on. For operations without a useful gradient see
`gauntlet.attacks.views.interception`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from gauntlet.attacks.views.interception.mode import InterceptionMode

_RELU: frozenset[Callable[..., Any]] = frozenset(
    {torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu, functional.relu_}
)

_IN_PLACE: frozenset[Callable[..., Any]] = frozenset({torch.relu_, Tensor.relu_, functional.relu_})

Backward: TypeAlias = Literal["true", "through", "sharp", "leaky"]
"""The model's own gradients, `InterceptionMode` with wide or narrow stand-ins, or `LeakyMode`."""
INTERCEPTED = {"through": 1.0, "sharp": 0.25}
"""Widths of the stand-ins, in units of the spread of what is compared."""


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


@contextmanager
def backward_mode(kind: Backward, batch: int) -> Iterator[Callable[[Tensor], Tensor]]:
    """The context for the model's forward pass over `batch` images: a function that completes the model's output, inside."""
    if kind in INTERCEPTED:
        with InterceptionMode(batch, INTERCEPTED[kind]) as mode:
            yield mode.output
    elif kind == "leaky":
        with LeakyMode():
            yield _unchanged
    else:
        yield _unchanged


def _unchanged(output: Tensor) -> Tensor:
    return output
