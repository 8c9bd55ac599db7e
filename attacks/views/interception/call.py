"""A call of torch that an intercepted pass made, and what stands in for its value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from gauntlet.attacks.views.interception.soft import Soft


@dataclass(frozen=True, eq=False)
class Call:
    """A call that was made, with stand-ins for its arguments."""

    name: str
    args: Sequence[Any]
    """As they were given; of a call in place, with the first one as it was before."""
    settings: Mapping[str, Any]
    value: Any
    """What it returned."""
    real: Callable[[Any], Any]
    """An argument with its gradient: the tensor itself, or the stand-in of one that has none."""
    soft: Callable[[Any], Soft | None]
    """The stand-in of an argument without gradient, None where there is none."""
    batch: int
    width: float

    def given(self, place: int, name: str, default: Any = None) -> Any:
        """An argument by place or name."""
        return self.args[place] if len(self.args) > place else self.settings.get(name, default)

    @property
    def x(self) -> Tensor:
        """The first argument, with its gradient."""
        x: Tensor = self.real(self.given(0, "input"))
        return x


Result: TypeAlias = "Soft | Tensor | tuple[Soft | Tensor | None, ...] | None"
"""What stands in for the value: for each tensor of a tuple, where it is one."""
Rule: TypeAlias = Callable[[Call], Result]
