"""Which packs of a results folder have which blocks: `packs/<digest>.json` beside each pack."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

from gauntlet.leaderboard.results.atomic_files import replace_text
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.pack_file import PackedBlock
from gauntlet.leaderboard.results.record import CellInfo
from gauntlet.leaderboard.results.sealed_json import read_sealed, sealed

FOLDER = "packs"
_SETTLED = 2_000_000_000
"""Nanoseconds after which another change of a folder has another time of change."""


@dataclass(frozen=True)
class IndexEntry:
    """A block as an index has it. What a block is, its own digests show when it is read."""

    key: str
    leaf: str
    cell: CellInfo


@dataclass
class _Known:
    """The blocks of the packs of a folder, as they were when it was read."""

    changed: int = -1
    read: int = 0
    blocks: dict[str, PackedBlock] = field(default_factory=dict)


def packed_blocks(root: Path) -> dict[str, PackedBlock]:
    """The blocks of all packs of a results folder, by key. Raises StoreError for a damaged index.

    The folder is read again where it has changed since.
    """
    folder = f"{root}/{FOLDER}"
    try:
        changed = os.stat(folder).st_mtime_ns  # noqa: PTH116  # asked for each of 80,000 blocks
    except FileNotFoundError:
        return {}
    known = _known(folder)
    if known.changed != changed or known.read < changed + _SETTLED:
        now = time.time_ns()
        known.blocks = _read(Path(folder))
        known.changed, known.read = changed, now
    return known.blocks


def index_path(pack: Path) -> Path:
    """The index beside a pack."""
    return pack.with_suffix(".json")


def index_text(blocks: Sequence[IndexEntry | None]) -> str:
    """The text of an index: each row group's block, null for one that is not offered."""
    cells = list(dict.fromkeys(json.dumps(asdict(block.cell)) for block in blocks if block is not None))
    rows = [None if one is None else [one.key, one.leaf, cells.index(json.dumps(asdict(one.cell)))] for one in blocks]
    return sealed({"cells": [json.loads(cell) for cell in cells], "blocks": rows}, FOLDER)


def read_index(path: Path) -> list[IndexEntry | None]:
    """The block of each row group of the pack that the index is beside. Raises StoreError where it is damaged."""
    try:
        fields = read_sealed(path, FOLDER)
        cells = [CellInfo.read(cell) for cell in fields["cells"]]
        rows = [None if row is None else (str(row[0]), str(row[1]), int(row[2])) for row in fields["blocks"]]
        return [None if row is None else IndexEntry(row[0], row[1], cells[row[2]]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise StoreError(
            f"{path} is damaged ({error}): delete it and its pack, and run the same command again to compute the blocks afresh"
        ) from error


def strike(key: str, block: PackedBlock) -> None:
    """No longer offer a block of a pack. Raises StoreError."""
    path = index_path(block.pack)
    replace_text(path, index_text([None if one is None or one.key == key else one for one in read_index(path)]))


@lru_cache(maxsize=64)
def _known(folder: str) -> _Known:
    return _Known()


def _read(folder: Path) -> dict[str, PackedBlock]:
    blocks: dict[str, PackedBlock] = {}
    for path in sorted(folder.glob("*.json")):
        pack = path.with_suffix(".parquet")
        for group, entry in enumerate(read_index(path)):
            if entry is not None:
                blocks.setdefault(entry.key, PackedBlock(pack, group, entry.leaf, entry.cell))
    return blocks
