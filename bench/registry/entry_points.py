"""Entries from outside Gauntlet: modules of users, and entry points of installed distributions.

Reading entry points gives names only. A distribution is imported when one of its names is requested.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importlib.metadata takes as long to import as gauntlet
    from importlib.metadata import EntryPoint

_loading: list[str] = []
"""The distributions whose entry points are being loaded, the innermost last."""


@dataclass(frozen=True, eq=False)
class Registrant:
    """The origin of a registered name."""

    where: str
    """The file or module, or the distribution with its version."""
    module: Mapping[str, Any] = field(repr=False)
    """The global names of the registering module. A file that is imported again has another mapping."""
    installed: bool = False
    """Whether the name comes from an entry point."""

    def may_replace(self, other: Registrant | None) -> bool:
        """Whether this registrant may replace an entry of `other`; None stands for Gauntlet itself.

        A file that is imported again replaces its own entries, and a user's file replaces entries of installed distributions.
        """
        if other is None:
            return False
        if other.installed and not self.installed:
            return True
        return self.where == other.where and self.module is not other.module


def caller() -> Registrant:
    """The module that called the function that calls `caller`."""
    names = sys._getframe(2).f_globals
    if _loading:
        return Registrant(_loading[-1], names, installed=True)
    return Registrant(str(names.get("__file__") or names.get("__name__")), names)


def offers(group: str) -> dict[str, list[EntryPoint]]:
    """The entry points of a group by name; several if several distributions offer the name. Nothing is imported."""
    points: dict[str, list[EntryPoint]] = {}
    for point in _entry_points().select(group=group):
        points.setdefault(point.name, []).append(point)
    return points


def distribution(point: EntryPoint) -> str:
    """The name and version of the distribution that an entry point belongs to."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown distribution"


@contextmanager
def loading(point: EntryPoint) -> Iterator[None]:
    """Attribute everything that is registered within the `with` block to the entry point."""
    _loading.append(distribution(point))
    try:
        yield
    finally:
        _loading.pop()


@cache
def _entry_points() -> Any:
    """The entry points of all groups. Read once: every query of `importlib.metadata` reads all installed distributions."""
    from importlib.metadata import entry_points

    return entry_points()
