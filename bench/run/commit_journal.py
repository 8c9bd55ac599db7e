"""The commits at which the cells of a results folder were requested, with the keys of the blocks that answered.

A block records the commit at which it was computed. A later commit with the same key is answered by that block and leaves no
trace in the store; it leaves one here.
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
class CommitRequest:
    """A commit at which blocks were requested."""

    commit: str
    dirty: bool
    """Whether tracked files differed from the commit."""
    time: str
    """ISO 8601."""


def note(root: Path, cell: str, keys: Sequence[str]) -> None:
    """Append to `history/<cell>.jsonl` that the blocks with these keys were requested at the commit of the working folder.

    Nothing is written outside git, or if the last line says the same. Raises WriteError.
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


def commit_requests(root: Path) -> tuple[dict[str, list[CommitRequest]], list[str]]:
    """The requests for each block of a results folder by its key, and a sentence for each file that cannot be read whole."""
    requests: dict[str, list[CommitRequest]] = {}
    skipped = []
    for path in sorted((root / "history").glob("*.jsonl")):
        try:
            entries, damaged = _entries(path)
        except OSError as error:
            skipped.append(f"{path} cannot be read: {error}")
            continue
        if damaged:
            skipped.append(f"{path} has damaged lines: {damaged}")
        for request, keys in entries:
            for key in keys:
                requests.setdefault(key, []).append(request)
    return requests, skipped


def _entries(path: Path) -> tuple[list[tuple[CommitRequest, list[str]]], int]:
    """The valid lines, and the number of damaged ones. Raises OSError."""
    if not path.exists():
        return [], 0
    entries, damaged = [], 0
    for line in path.read_bytes().splitlines():
        try:
            fields = json.loads(line)
            request = CommitRequest(str(fields["commit"]), bool(fields["dirty"]), str(fields["time"]))
            entries.append((request, [str(key) for key in fields["keys"]]))
        except (ValueError, KeyError, TypeError):
            damaged += 1
    return entries, damaged
