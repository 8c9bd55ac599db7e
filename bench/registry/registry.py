"""The generic registry of models, data, attacks and defenses. Entries have names, match wildcards and are imported lazily."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from gauntlet.bench.registry.entry_points import Registrant, distribution, loading, offers

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class Registry(Generic[T]):
    """Entries of one kind by name. A string entry `"module:object"` is imported on first use.

    `kind`: the word for error messages, such as "model" or "attack". `group`: the group of entry points by which installed
    distributions offer entries; their names count as registered, and they are loaded on request. `adopt`: checks an entry and
    returns it, or another in its place; raises ValueError for an entry that is not usable.
    """

    def __init__(
        self,
        kind: str,
        group: str = "",
        adopt: Callable[[str, T], T] = lambda name, entry: entry,
        reserved: Sequence[Registry[Any]] = (),
    ) -> None:
        """`reserved`: registries whose names cannot be registered here, but are suggested for unknown names."""
        self.kind = kind
        self._group = group
        self._adopt = adopt
        self._reserved = reserved
        self._entries: dict[str, T | str] = {}
        self._registrants: dict[str, Registrant] = {}
        self._problems: dict[str, str] = {}
        self._shadowed: dict[str, str] = {}

    def register(self, name: str, entry: T | str, by: Registrant | None = None) -> None:
        """Add an entry; `by`: its registrant, None for Gauntlet itself.

        Raises ValueError if the name is taken, or not usable on a command line. An entry that `by` may replace does not count as
        taken; see `Registrant.may_replace`.
        """
        if not name or set(name) & set("*?[]()@, \t\n"):
            raise ValueError(f"{self.kind} name {name!r} is not usable: no spaces, commas, brackets or wildcards")
        if self._is_reserved(name):
            raise ValueError(f"{self.kind} {name!r} is registered already: choose another name")
        if name in self._entries:
            holder = self._registrants.get(name)
            if by is None or not by.may_replace(holder):
                where = f" by {holder.where}" if holder is not None else ""
                raise ValueError(f"{self.kind} {name!r} is registered already{where}: choose another name")
        self._entries[name] = entry if isinstance(entry, str) else self._adopt(name, entry)
        self._problems.pop(name, None)
        if by is not None:
            self._registrants[name] = by

    def get(self, name: str) -> T:
        """The entry of that name. Raises LookupError with close matches, or with the reason why it cannot be loaded."""
        self._load(name)
        if name in self._problems:
            raise LookupError(f"{self._problems[name]}: repair or uninstall it")
        if name not in self._entries:
            self.load_offers()
        if name not in self._entries:
            raise LookupError(self._unknown(name))
        entry = self._entries[name]
        if isinstance(entry, str):
            entry = self._imported(name, entry)
            self._entries[name] = entry
        return entry

    def names(self, pattern: str = "*") -> list[str]:
        """Sorted names that match a shell wildcard. Nothing is imported or built."""
        known = {*self._entries, *self._offered} - set(self._problems)
        return sorted(fnmatch.filter(known, pattern))

    def expand(self, pattern: str) -> list[str]:
        """The names that match `pattern`, a name or a shell wildcard. Raises LookupError if there is none.

        A wildcard leaves out entry points that cannot be loaded; see `problems`.
        """
        if pattern in self:
            return [pattern]
        wild = bool(set(pattern) & set("*?["))
        if not wild:
            self.load_offers()
        matches = self.names(pattern)
        for name in matches:
            self._load(name)
        matches = [name for name in matches if name in self._entries]
        if not matches:
            raise LookupError(self._unknown(pattern))
        return matches

    def load_offers(self) -> None:
        """Load every entry point. Then `problems` is complete, and entries registered under other names are known."""
        for name, points in self._offered.items():
            if self._is_reserved(name) or (name in self._entries and name not in self._registrants):
                self._shadowed[name] = (
                    f"{self.kind} {name!r} of {_distributions(points)} is not used: the name belongs to Gauntlet"
                )
            self._load(name)

    def origin(self, name: str) -> str:
        """The file or distribution that registered the name; empty for Gauntlet's own entries."""
        holder = self._registrants.get(name)
        return holder.where if holder is not None else ""

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each entry point that was loaded and is not usable."""
        return (*self._problems.values(), *self._shadowed.values())

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._offered

    @cached_property
    def _offered(self) -> dict[str, list[EntryPoint]]:
        return offers(self._group) if self._group else {}

    def _load(self, name: str) -> None:
        """Load the entry point of that name, if there is one. A failure is recorded in `problems`."""
        if name in self._entries or name in self._problems or name not in self._offered:
            return
        points = self._offered[name]
        try:
            if len(points) > 1:
                raise ValueError("each offers it; uninstall all but one")
            with loading(points[0]):
                entry = points[0].load()
                if name not in self._entries and callable(entry):
                    entry = entry()
                if name not in self._entries:
                    self.register(name, entry, Registrant(distribution(points[0]), {}, installed=True))
        except (Exception, SystemExit) as error:
            self._entries.pop(name, None)
            reason = f"{type(error).__name__}: {error}"
            self._problems[name] = f"{self.kind} {name!r} of {_distributions(points)} cannot be loaded ({reason})"

    def _imported(self, name: str, entry: str) -> T:
        module, _, attribute = entry.partition(":")
        try:
            return self._adopt(name, cast("T", getattr(importlib.import_module(module), attribute)))
        except Exception as error:
            if name not in self._registrants:
                raise
            raise LookupError(
                f"{self.kind} {name!r} cannot be loaded from {entry!r} ({type(error).__name__}: {error}): correct it"
            ) from error

    def _is_reserved(self, name: str) -> bool:
        return any(name in registry for registry in self._reserved)

    @property
    def _plural(self) -> str:
        return self.kind if self.kind == "data" else f"{self.kind}s"

    def _unknown(self, name: str) -> str:
        known = [*self.names(), *(other for registry in self._reserved for other in registry.names())]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        if ".py" in name:
            hint = f": register it in a Python file, and name the file with --plugin FILE.py (docs/extending.md){hint}"
        return "; ".join(
            [f"unknown {self.kind} {name!r}{hint} (`gauntlet list {self._plural}` shows all)", *self.problems]
        )


def _distributions(points: list[EntryPoint]) -> str:
    return " and of ".join(sorted(distribution(point) for point in points))
