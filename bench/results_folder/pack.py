"""Packing the finished cells of a results folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gauntlet.bench.results_folder.all_runs import runs_of
from gauntlet.leaderboard.results.errors import DamagedBlockError
from gauntlet.leaderboard.results.packing import pack_blocks


@dataclass(frozen=True)
class PackedCell:
    """A cell whose blocks were packed, or why they were not."""

    title: str
    pack: Path | None
    problem: str = ""


def pack_folder(root: Path) -> Iterator[PackedCell]:
    """Pack the blocks of each finished cell of all runs, one cell at a time, where two or more have files of their own.

    A cell with a damaged block stays as it is. Raises RunError, StoreError and WriteError.
    """
    for run in runs_of(root):
        for cell in run.plan.cells:
            keys = [key for key, _ in run.keys(cell) or []]
            if not keys or not all(run.store.has(key) for key in keys):
                continue
            try:
                pack = pack_blocks(run.store, keys)
            except DamagedBlockError as error:
                yield PackedCell(cell.info.title, None, error.found)
                continue
            if pack is not None:
                yield PackedCell(cell.info.title, pack)
