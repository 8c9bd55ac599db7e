"""Patches for the length of a pass, of what a function mode of torch does not see."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_ONE_AT_A_TIME = threading.RLock()
"""Passes of several threads wait for one another: they would undo each other's patches in the wrong order."""
Custom = Callable[[type, Callable[..., Any], Sequence[Any], dict[str, Any]], Any]


@contextmanager
def patched(joined: Callable[[Tensor], Tensor], custom: Custom, entered: Callable[[], None]) -> Iterator[None]:
    """`torch.from_numpy` gives `joined` of its value, `custom` applies custom functions, inference mode only calls `entered`."""
    with _ONE_AT_A_TIME, _patched(joined, custom, entered):
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
