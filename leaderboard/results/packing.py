"""Moving the blocks of finished cells into packs.

The order makes a kill harmless at any moment: the pack is written, flushed and read back whole, then its index is written and
flushed, and only then the blocks' own files go. Until then these are found first, and from the index on either copy is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

from gauntlet.leaderboard.results.atomic_files import remove_file, replace_file, replace_text, sync_folder, write_once
from gauntlet.leaderboard.results.errors import DamagedBlockError
from gauntlet.leaderboard.results.pack_file import PackedBlock, pack_name, read_packed, write_pack
from gauntlet.leaderboard.results.pack_index import FOLDER, IndexEntry, index_path, index_text
from gauntlet.leaderboard.results.store import Store

LEAST_BLOCKS: Final = 10
"""Number of blocks from which on a run packs a cell at its end."""


def pack_blocks(store: Store, keys: Sequence[str]) -> Path | None:
    """Pack those of the blocks that have files of their own, if there are two or more, and return the pack's path.

    Every block is read in full first. Raises DamagedBlockError, StoreError and WriteError; the blocks' files are then intact.
    """
    loose = [key for key in keys if store.loose(key)]
    if len(loose) < 2:
        return None
    entries = []
    for key in loose:
        cell = store.read(key, adversarial=True).cell
        entries.append(IndexEntry(key, store.leaf(key), cell))
    pack = store.root / FOLDER / f"{pack_name([entry.leaf for entry in entries])}.parquet"

    def save(file: BinaryIO) -> None:
        write_pack(file, (store.table(key) for key in loose))

    replace_file(pack, save)
    sync_folder(pack.parent)
    for group, entry in enumerate(entries):
        block = PackedBlock(pack, group, entry.leaf, entry.cell)
        if read_packed(block, adversarial=True)[1] != entry.leaf:
            raise DamagedBlockError(f"{store.place(entry.key)} was replaced while it was packed")
    # Where a pack of this name was there, blocks may have been struck from its index: it is whole again.
    replace_text(index_path(pack), index_text(entries))
    sync_folder(pack.parent)
    for key in loose:
        remove_file(store.path(key))
    return pack


def unpack_block(store: Store, key: str) -> None:
    """Give a block of a pack a file of its own, unless it has one. Raises DamagedBlockError, StoreError and WriteError."""
    if not store.loose(key):
        block = store.content(key)
        write_once(store.path(key), lambda file: file.write(block))
