"""The commit graph of a repository as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True, eq=False)
class CommitHistory:
    """Commits with their parents."""

    parents: Mapping[str, tuple[str, ...]]
    """Parents of each commit, for all requested commits and their ancestors, parents before children. Parents that are not
    among the commits (a shallow clone has such) are ignored."""
    subjects: Mapping[str, str] = field(default_factory=dict)
    """First lines of the messages of some commits."""

    def position(self, commit: str) -> int:
        """Index of the commit in the order of the history, parents first. Raises KeyError for an unknown commit."""
        return self._positions[commit]

    def ancestors(self, commit: str) -> frozenset[str]:
        """The commit and all its ancestors; empty for an unknown commit."""
        if commit not in self._ancestors:
            visited, waiting = set[str](), [commit]
            while waiting:
                current = waiting.pop()
                if current in self.parents and current not in visited:
                    visited.add(current)
                    waiting += self.parents[current]
            self._ancestors[commit] = frozenset(visited)
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
