"""Patches for the length of a pass, of what a function mode of torch does not see."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_ONE_AT_A_TIME = threading.RLock()
"""Passes of several threads wait for one another: they would undo each other's patches in the wrong order."""
Custom = Callable[[type, Callable[..., Any], Sequence[Any], dict[str, Any]], Any]
Hook = Callable[[Callable[..., Any]], Callable[..., Any]]


@contextmanager
def patched(
    joined: Callable[[Tensor], Tensor], custom: Custom, entered: Callable[[], None], hook: Hook
) -> Iterator[None]:
    """`torch.from_numpy` gives `joined` of its value, `custom` applies custom functions, inference mode only calls `entered`.

    `hook` stands in for each hook of a module on its gradients.
    """
    with _ONE_AT_A_TIME, _patched(joined, custom, entered), _hooks_patched(hook):
        yield


@contextmanager
def _patched(joined: Callable[[Tensor], Tensor], custom: Custom, entered: Callable[[], None]) -> Iterator[None]:
    from_numpy, apply = torch.from_numpy, torch.autograd.Function.__dict__["apply"]
    inference: Any = torch.autograd.grad_mode.inference_mode
    enter, leave = inference.__enter__, inference.__exit__

    def applied(cls: Any, *args: Any, **settings: Any) -> Any:
        return custom(cls, apply.__get__(None, cls), args, settings)

    where: Any = torch
    function: Any = torch.autograd.Function
    where.from_numpy = lambda array: joined(from_numpy(array))
    function.apply = classmethod(applied)
    inference.__enter__ = lambda self: entered()
    inference.__exit__ = lambda self, *details: None
    try:
        yield
    finally:
        where.from_numpy = from_numpy
        function.apply = apply
        inference.__enter__, inference.__exit__ = enter, leave


@contextmanager
def _hooks_patched(hook: Hook) -> Iterator[None]:
    module: Any = nn.Module
    backward, before = module._get_backward_hooks, module._get_backward_pre_hooks

    def get_backward_hooks(self: nn.Module) -> tuple[list[Any], list[Any]]:
        full, other = backward(self)
        return [hook(one) for one in full], [hook(one) for one in other]

    module._get_backward_hooks = get_backward_hooks
    module._get_backward_pre_hooks = lambda self: [hook(one) for one in before(self)]
    try:
        yield
    finally:
        module._get_backward_hooks, module._get_backward_pre_hooks = backward, before
