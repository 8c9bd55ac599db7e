"""At which commits a results folder's cells were asked for, and which blocks answered: also where nothing had to be run.

A block says where it was computed first. A later commit whose model gives the same key is answered by that block and leaves
no trace in the store; it leaves one here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gauntlet.bench.environment.clock import now
from gauntlet.bench.environment.provenance import commit
from gauntlet.leaderboard.results.errors import WriteError


@dataclass(frozen=True)
class Asked:
    """A commit that asked for blocks."""

    commit: str
    dirty: bool
    """Whether tracked files differed from it."""
    time: str
    """ISO 8601."""


def note(root: Path, cell: str, keys: Sequence[str]) -> None:
    """Append to `history/<cell>.jsonl` that the working folder's commit asks for the blocks of these keys; outside git nothing.

    What the last line says already is not repeated. Raises WriteError.
    """
    head, dirty = commit()
    if head is None:
        return
    path = root / "history" / f"{cell}.jsonl"
    try:
        known, _ = _entries(path)
        if known and (known[-1][0].commit, known[-1][0].dirty, known[-1][1]) == (head, dirty, list(keys)):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"commit": head, "dirty": dirty, "time": now(), "keys": list(keys)})
        # One write at the end of the file, so that lines of several processes do not mix.
        with path.open("ab", buffering=0) as file:
            file.write(f"{line}\n".encode())
            os.fsync(file.fileno())
    except OSError as error:
        raise WriteError.of(path, error) from error


def askers(root: Path) -> tuple[dict[str, list[Asked]], list[str]]:
    """Who asked for each block of a results folder, by key; and a sentence for each file that could not be read whole."""
    found: dict[str, list[Asked]] = {}
    skipped = []
    for path in sorted((root / "history").glob("*.jsonl")):
        try:
            entries, damaged = _entries(path)
        except OSError as error:
            skipped.append(f"{path} cannot be read: {error}")
            continue
        if damaged:
            skipped.append(f"{path} has damaged lines: {damaged}")
        for asked, keys in entries:
            for key in keys:
                found.setdefault(key, []).append(asked)
    return found, skipped


def _entries(path: Path) -> tuple[list[tuple[Asked, list[str]]], int]:
    """The lines that can be read, and how many cannot. Raises OSError."""
    if not path.exists():
        return [], 0
    found, damaged = [], 0
    for line in path.read_bytes().splitlines():
        try:
            fields = json.loads(line)
            asked = Asked(str(fields["commit"]), bool(fields["dirty"]), str(fields["time"]))
            found.append((asked, [str(key) for key in fields["keys"]]))
        except (ValueError, KeyError, TypeError):
            damaged += 1
    return found, damaged
