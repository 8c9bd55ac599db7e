"""The operations of a pass that hide its gradient, by file and line of the caller."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from torch import Tensor


class Trace:
    """`seen` names operations, with file and line. Truth values and indices are named once numbers are made of them.

    So those that no number is made of, as in an assertion, hide nothing.
    """

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}
        self._pending: dict[int, dict[str, str]] = {}

    def note(self, name: str) -> None:
        """An operation that hides the gradient."""
        self.seen.setdefault(_place(), name)

    def follow(self, name: str, given: Sequence[Any], value: Any) -> None:
        """An operation on `given` that made `value`, which other code goes on with; `name` is empty if it hides nothing."""
        hidden = {place: other for one in given for place, other in self._pending.get(id(one), {}).items()}
        if name:
            hidden.setdefault(_place(), name)
        if isinstance(value, Tensor) and not value.is_floating_point():
            self._pending[id(value)] = hidden
        else:
            self.seen = {**hidden, **self.seen}

    def finish(self, value: Any, *, lost: bool) -> None:
        """The pass gave `value`; `lost`: without a gradient, so that everything that hides one counts."""
        for hidden in self._pending.values() if lost else [self._pending.get(id(value), {})]:
            self.seen = {**hidden, **self.seen}
        self._pending.clear()


def _place() -> str:
    frame = sys._getframe(1)
    while frame.f_back is not None and _ours(frame.f_code.co_filename):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _ours(file: str) -> bool:
    return "/torch/" in file or __file__.rpartition("/")[0] in file
