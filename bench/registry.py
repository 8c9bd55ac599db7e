"""One registry for models, data, attacks and defenses: entries by name, found by wildcard, imported lazily."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class Registry(Generic[T]):
    """Entries of one kind by name. A string entry `"module:object"` is imported on first use.

    `kind` is the word used in errors: "model", "attack", "defense", "data".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T | str] = {}

    def register(self, name: str, entry: T | str) -> None:
        """Add an entry. Raises ValueError where the name is taken or is not usable on a command line."""
        if not name or set(name) & set("*?[]()@, \t\n"):
            raise ValueError(f"{self.kind} name {name!r} is not usable: no spaces, commas, brackets or wildcards")
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered already: choose another name")
        self._entries[name] = entry

    def get(self, name: str) -> T:
        """The entry of that name. Raises LookupError that names near matches."""
        if name not in self._entries:
            raise LookupError(self._unknown(name))
        entry = self._entries[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = cast("T", getattr(importlib.import_module(module), attribute))
            self._entries[name] = entry
        return entry

    def names(self, pattern: str = "*") -> list[str]:
        """Sorted names that match a shell wildcard; nothing is imported or built."""
        return sorted(fnmatch.filter(self._entries, pattern))

    def expand(self, pattern: str) -> list[str]:
        """The names that `pattern` means: itself, or what the wildcard matches. Raises LookupError where nothing does."""
        if pattern in self._entries:
            return [pattern]
        found = self.names(pattern) if set(pattern) & set("*?[") else []
        if not found:
            raise LookupError(self._unknown(pattern))
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._entries, n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        return f"unknown {self.kind} {name!r}{hint} (`gauntlet list` shows all)"
