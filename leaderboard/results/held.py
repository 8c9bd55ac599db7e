"""What a process vouches for in a results folder that other code may write into as well."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.published_figure import PublishedFigure
from gauntlet.leaderboard.results.record import CellError, CellInfo, Record
from gauntlet.leaderboard.results.sealed_json import read_sealed

_OUTCOME = ("id", "label", "clean_prediction", "prediction", "robust", "wrong_share_scored")


@dataclass(frozen=True)
class Timing:
    """The cost of the latest run of a block that was stored before: blocks are immutable, what they cost is not."""

    seconds: float
    peak_memory_mib: float
    time: str
    """When that run was, ISO 8601."""


@dataclass(frozen=True)
class Held:
    """What counts of a folder: what this process stored itself, and what it found before foreign code was started.

    Blocks are held by the hash of their content, so that a file which was replaced, or has appeared since, is not read.
    """

    leaves: dict[str, str] = field(default_factory=dict)
    """The hash of each block's content (its leaf) by key; empty for a block that could not be read when it was found."""
    own: dict[str, bytes] = field(default_factory=dict)
    """The files of blocks that this process made while another one stored the same."""
    errors: dict[str, CellError | None] = field(default_factory=dict)
    """The latest failure of each cell, or of a shard of it, by name; None for cells that succeeded."""
    measured: dict[str, dict[str, Mapping[str, Any] | StoreError]] | None = field(default_factory=dict)
    """The measurements of each pipeline by its name and their keys; an error for a file that was damaged when it was found. None:
    those of the folder count, whoever writes them."""
    timings: dict[str, Timing] = field(default_factory=dict)
    """By the keys of blocks that were run again."""
    blocks: dict[str, Sequence[tuple[str, int]]] = field(default_factory=dict)
    """Keys and sizes of the blocks of each prepared cell, by the cell's name."""
    published: dict[str, Sequence[PublishedFigure]] = field(default_factory=dict)
    """By the names of models."""

    def error(self, name: str) -> CellError | None:
        """The latest failure of a cell, or else of a shard of it, if any."""
        return next((self.errors[one] for one in self._named(name) if self.errors[one] is not None), None)

    def clear_error(self, name: str) -> None:
        """Forget the failures of a cell and of its shards."""
        self.errors.update(dict.fromkeys((name, *self._named(name))))

    def _named(self, name: str) -> list[str]:
        # Cells that run side by side may fail meanwhile.
        return sorted(one for one in list(self.errors) if one == name or one.startswith(f"{name}.shard-"))


def same_outcome(one: Record, other: Record) -> bool:
    """Whether two blocks say the same of the same cell, but for costs, time and place."""
    columns = [(getattr(one.samples, name), getattr(other.samples, name)) for name in _OUTCOME]
    return (one.cell, one.flags) == (other.cell, other.flags) and all(np.array_equal(a, b) for a, b in columns)


def read_timing(path: str, key: str) -> Timing | None:
    """What the latest run of a block cost; None where there is no file. Raises StoreError where it is damaged."""
    try:
        return Timing(**read_sealed(path, key))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{path} is damaged ({error}): delete it and run the same command again") from error


def read_failure(path: Path) -> CellError | None:
    """The failure in a file; None where there is no file. Raises StoreError where it is damaged."""
    try:
        fields = read_sealed(path, path.stem)
        return CellError(**{**fields, "cell": CellInfo.read(fields["cell"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{path} is damaged ({error}): delete it and run the same command again") from error


def read_failures(folder: Path) -> dict[str, CellError | None]:
    """The failures in the files of a folder, by their names, without damaged ones, which are replaced once their cell has run."""
    failures = {}
    for path in folder.glob("*.json"):
        with contextlib.suppress(StoreError):
            failures[path.stem] = read_failure(path)
    return failures
