"""The journal of a results folder: the commits that requested the blocks of each cell.

A block names the commit at which it was computed. A later commit whose model has the same key gets that block from the store
and leaves no trace there, so the request is recorded here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gauntlet.bench.environment.clock import now
from gauntlet.bench.environment.git_commit import commit
from gauntlet.leaderboard.results.errors import WriteError
from gauntlet.leaderboard.results.sealed_json import parse_json


@dataclass(frozen=True)
class CommitRequest:
    """A commit at which blocks were requested."""

    commit: str
    dirty: bool
    """Whether tracked files differed from the commit."""
    time: str
    """ISO 8601."""


def record_request(root: Path, cell: str, keys: Sequence[str]) -> None:
    """Append the current commit and the requested keys to `history/<cell>.jsonl`. Outside git nothing is written.

    A request that equals the last line is not repeated. Raises WriteError.
    """
    head, dirty = commit()
    if head is None:
        return
    path = root / "history" / f"{cell}.jsonl"
    try:
        entries, _ = _read_entries(path)
        if entries and (entries[-1][0].commit, entries[-1][0].dirty, entries[-1][1]) == (head, dirty, list(keys)):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"commit": head, "dirty": dirty, "time": now(), "keys": list(keys)})
        # One write at the end of the file, so that lines of several processes do not mix.
        with path.open("ab", buffering=0) as file:
            file.write(f"{line}\n".encode())
            os.fsync(file.fileno())
    except OSError as error:
        raise WriteError.of(path, error) from error


def requests_by_block(root: Path) -> tuple[dict[str, list[CommitRequest]], list[str]]:
    """The requests for each block of a results folder, by key, and a sentence for each file with unreadable parts."""
    requests: dict[str, list[CommitRequest]] = {}
    skipped = []
    for path in sorted((root / "history").glob("*.jsonl")):
        try:
            entries, damaged = _read_entries(path)
        except OSError as error:
            skipped.append(f"{path} cannot be read: {error}")
            continue
        if damaged:
            skipped.append(f"{path} has damaged lines: {damaged}")
        for request, keys in entries:
            for key in keys:
                requests.setdefault(key, []).append(request)
    return requests, skipped


def _read_entries(path: Path) -> tuple[list[tuple[CommitRequest, list[str]]], int]:
    """The readable lines, and the number of damaged ones. Raises OSError."""
    if not path.exists():
        return [], 0
    entries, damaged = [], 0
    for line in path.read_bytes().splitlines():
        try:
            fields = parse_json(line)
            request = CommitRequest(str(fields["commit"]), bool(fields["dirty"]), str(fields["time"]))
            entries.append((request, [str(key) for key in fields["keys"]]))
        except (ValueError, KeyError, TypeError):
            damaged += 1
    return entries, damaged
