"""Which commit lies before which: the graph of a repository's history, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True, eq=False)
class History:
    """Commits and their parents."""

    parents: Mapping[str, tuple[str, ...]]
    """Of every commit that leads to one of those asked for, parents before their children. A parent that is not among them
    (a shallow clone has such) counts for nothing."""
    subjects: Mapping[str, str] = field(default_factory=dict)
    """First lines of the messages of some commits."""

    def position(self, commit: str) -> int:
        """Its number in the order of the history, parents first. Raises KeyError for a commit that is not there."""
        return self._positions[commit]

    def ancestors(self, commit: str) -> frozenset[str]:
        """All commits before it, and itself; nothing for a commit that is not there."""
        if commit not in self._ancestors:
            found, waiting = set[str](), [commit]
            while waiting:
                one = waiting.pop()
                if one in self.parents and one not in found:
                    found.add(one)
                    waiting += self.parents[one]
            self._ancestors[commit] = frozenset(found)
        return self._ancestors[commit]

    def between(self, old: str, new: str) -> frozenset[str]:
        """The commits of `git rev-list old..new` without `new`."""
        return self.ancestors(new) - self.ancestors(old) - {new}

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {commit: number for number, commit in enumerate(self.parents)}

    @cached_property
    def _ancestors(self) -> dict[str, frozenset[str]]:
        return {}
