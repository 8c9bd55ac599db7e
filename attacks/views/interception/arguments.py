"""The arguments of calls of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor


def in_place(name: str) -> bool:
    """Such as `add_`, `x[i] = y` and `x += y`."""
    return (
        name == "__setitem__"
        or (name.startswith("__i") and name not in ("__invert__", "__index__", "__int__"))
        or (name.endswith("_") and not name.startswith("__"))
    )


def elsewhere(name: str) -> Callable[..., Any]:
    """The operation that gives a new tensor where `name` changes one."""
    found: Callable[..., Any] = getattr(Tensor, f"__{name[3:]}" if name.startswith("__i") else name.rstrip("_"))
    return found


def tensors(given: Sequence[Any]) -> list[Tensor]:
    """The tensors among the arguments, and in lists and tuples of them."""
    found = []
    for one in given:
        if isinstance(one, Tensor):
            found.append(one)
        elif isinstance(one, list | tuple):
            found += [part for part in one if isinstance(part, Tensor)]
    return found


def mapped(given: Any, change: Callable[[Any], Any]) -> Any:
    """The arguments with `change` applied to each."""
    if isinstance(given, Mapping):
        return {name: change(one) for name, one in given.items()}
    return [change(one) for one in given]
