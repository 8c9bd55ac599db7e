"""Patches for the length of a pass, of what a function mode of torch does not see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Custom = Callable[[type, Callable[..., Any], Sequence[Any], dict[str, Any]], Any]


@contextmanager
def patched(joined: Callable[[Tensor], Tensor], custom: Custom, entered: Callable[[], None]) -> Iterator[None]:
    """`torch.from_numpy` gives `joined` of its value, `custom` applies custom functions, inference mode only calls `entered`."""
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
