"""Joining the small files of results folders: commits, published figures, and where seconds went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gauntlet.leaderboard.results.atomic_files import replace_text
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.sealed_json import read_sealed, sealed
from gauntlet.leaderboard.results.spent import read_spent, write_spent


def merge_history(target: Path, source: Path) -> None:
    """Add the lines of a history that the target has not. Raises WriteError."""
    known = target.read_text(encoding="utf-8").splitlines() if target.exists() else []
    lines = dict.fromkeys([*known, *source.read_text(encoding="utf-8").splitlines()])
    if len(lines) > len(known):
        replace_text(target, "".join(f"{line}\n" for line in lines))


def merge_published(target: Path, source: Path) -> None:
    """Add the published figures of a model that the target has not. Raises StoreError for a damaged file."""
    record = _read(source)
    if target.exists():
        known = _read(target)
        more = [figure for figure in record["published"] if figure not in known["published"]]
        if not more:
            return
        record = {**known, "published": [*known["published"], *more]}
    replace_text(target, sealed(record, target.stem))


def merge_spent(target: Path, source: Path, *, more: bool) -> None:
    """Copy the seconds of a cell, or add them where the folder brought blocks of it (`more`). Raises StoreError."""
    spent, before = read_spent(source), read_spent(target)
    if spent is not None and (before is None or more):
        write_spent(target, spent if before is None else before + spent)


def _read(path: Path) -> dict[str, Any]:
    try:
        record = read_sealed(path, path.stem)
        record["published"] = list(record["published"])
        return record
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged ({error}): delete it and run the same command again") from error
