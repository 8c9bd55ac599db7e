"""Who registers from outside Gauntlet: modules of users, and installed distributions by their entry points.

Entry points are names at first: nothing of a distribution is imported before one of its names is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # reading metadata costs as much as all of `import gauntlet`
    from importlib.metadata import EntryPoint

_loading: list[str] = []
"""The distributions whose entry points are being loaded, the innermost last."""


@dataclass(frozen=True, eq=False)
class Registrant:
    """Who registered a name."""

    where: str
    """A file or module, or a distribution with its version."""
    module: Mapping[str, Any] = field(repr=False)
    """The global names of the module that did it: another mapping where the same file was imported anew."""
    installed: bool = False
    """Whether an entry point brought it."""

    def may_replace(self, other: Registrant | None) -> bool:
        """Whether its names may take the place of another's: those of the same file, imported anew, and, as what a user says
        counts before what is installed, those of entry points. None stands for Gauntlet itself."""
        if other is None:
            return False
        if other.installed and not self.installed:
            return True
        return self.where == other.where and self.module is not other.module


def caller() -> Registrant:
    """The module that called the function that calls this."""
    names = sys._getframe(2).f_globals
    if _loading:
        return Registrant(_loading[-1], names, installed=True)
    return Registrant(str(names.get("__file__") or names.get("__name__")), names)


def offers(group: str) -> dict[str, list[EntryPoint]]:
    """The entry points of a group by name; nothing is imported. Names that several distributions offer have several."""
    found: dict[str, list[EntryPoint]] = {}
    for point in _entry_points().select(group=group):
        found.setdefault(point.name, []).append(point)
    return found


def distribution(point: EntryPoint) -> str:
    """The name and version of the distribution that an entry point belongs to."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown distribution"


@contextmanager
def loading(point: EntryPoint) -> Iterator[None]:
    """What is registered inside comes from that entry point."""
    _loading.append(distribution(point))
    try:
        yield
    finally:
        _loading.pop()


@cache
def _entry_points() -> Any:
    """Of all groups at once: asked for one by one, each would read what is installed again."""
    from importlib.metadata import entry_points

    return entry_points()
