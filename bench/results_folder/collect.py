"""Removing blocks that no run of a results folder asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gauntlet.bench.results_folder.all_runs import runs_of
from gauntlet.bench.run.commit_journal import requests_by_block
from gauntlet.leaderboard.examples.clean_images import FOLDER
from gauntlet.leaderboard.results.atomic_files import remove_file
from gauntlet.leaderboard.results.errors import DamagedBlockError
from gauntlet.leaderboard.results.pack_file import PackedBlock
from gauntlet.leaderboard.results.pack_index import index_path, packed_blocks
from gauntlet.leaderboard.results.packing import pack_blocks, unpack_block
from gauntlet.leaderboard.results.store import Store


@dataclass(frozen=True)
class Collected:
    """Blocks that no run asks for, and the bytes that they take."""

    blocks: int
    size: int
    kept: int
    """Blocks that stay."""


def collect(root: Path, *, history: bool = False, dry: bool = False) -> Collected:
    """Remove the blocks that no run of the folder asks for; with `history` also those that only earlier commits asked for.

    Blocks of earlier commits are what `gauntlet bisect` compares. `dry`: remove nothing. A pack that holds others too is written
    again without them. Raises RunError, StoreError and WriteError.
    """
    runs = runs_of(root)
    store = runs[0].store
    asked = {key for run in runs for cell in run.plan.cells for key, _ in run.keys(cell) or []}
    if not history:
        asked |= requests_by_block(root)[0].keys()
    idle = [key for key in store.stored_keys() if key not in asked]
    size = sum(store.size(key) for key in idle)
    staying = [key for key in store.stored_keys() if key in asked]
    kept, clean = len(staying), _idle_clean(store, staying)
    size += sum(path.stat().st_size for path in clean)
    if not dry:
        packs: dict[Path, list[tuple[str, PackedBlock]]] = {}
        for key, block in packed_blocks(root).items():
            packs.setdefault(block.pack, []).append((key, block))
        for key in idle:
            if store.loose(key):
                remove_file(store.path(key))
        for pack, blocks in packs.items():
            if all(key in asked for key, _ in blocks):
                continue
            asked_for = [key for key, _ in blocks if key in asked]
            for key in asked_for:
                unpack_block(store, key)
            # The index goes first: without it the pack offers nothing.
            remove_file(index_path(pack))
            remove_file(pack)
            pack_blocks(store, asked_for)
        for path in clean:
            remove_file(path)
    return Collected(len(idle), size, kept)


def _idle_clean(store: Store, keys: Sequence[str]) -> list[Path]:
    """The files of clean images that the examples of none of these blocks differ from; none if a damaged block may need one."""
    files = sorted((store.root / FOLDER).glob("??/*.parquet"))
    try:
        needed = {store.clean_digest(key) for key in keys} if files else set()
    except DamagedBlockError:
        return []
    return [path for path in files if path.stem not in needed]
