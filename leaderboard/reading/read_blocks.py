"""The blocks of a cell, read together: a table of many cells reads many small blocks, and most of that time is spent per block.

Columns are checked for contradictions for all blocks at once. Every block's digests are checked as when it is read alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate, groupby, pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from gauntlet.leaderboard.results.block_file import (
    METADATA,
    AlteredError,
    SchemaError,
    arrays_of,
    read_columns,
)
from gauntlet.leaderboard.results.contradictions import consistent
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.pack_file import BLOCK, pack_columns
from gauntlet.leaderboard.results.pack_index import packed_blocks
from gauntlet.leaderboard.results.record import Record
from gauntlet.leaderboard.results.sealed_json import parse_json
from gauntlet.leaderboard.results.store import Store

_SMALL: Final = 2**18
"""Bytes up to which a file is read in one piece: of larger ones most are examples."""
_DAMAGE = (StoreError, SchemaError, pa.ArrowException, OSError, KeyError, ValueError, TypeError, IndexError)


def read_blocks(store: Store, keys: Sequence[str], *, adversarial: bool = False) -> list[Record]:
    """The blocks of these keys in order, as `Store.read` gives them, and raising as it does.

    They are read one by one if their examples are asked for, if the store holds blocks, or if any of them is damaged: that tells
    which one is, and how.
    """
    if store.held is None and not adversarial and len(keys) > 1:
        with suppress(*_DAMAGE):
            return _together(store, keys)
    return [store.read(key, adversarial=adversarial) for key in keys]


def _together(store: Store, keys: Sequence[str]) -> list[Record]:
    files: dict[str, tuple[pa.Table, dict[str, Any]]] = {}
    packs: dict[Path, list[tuple[str, int]]] = {}
    for key in keys:
        try:
            files[key] = _file(store.file(key))
        except FileNotFoundError:
            block = packed_blocks(store.root)[key]
            packs.setdefault(block.pack, []).append((key, block.group))
    read = dict(_of_files(store, files)) if files else {}
    for pack, groups in packs.items():
        read.update(_of_pack(store, pack, groups))
    return [read[key] for key in keys]


def _file(path: str) -> tuple[pa.Table, dict[str, Any]]:
    """The columns and the metadata of a block that has a file of its own."""
    with pa.OSFile(path, "rb") as file:
        small = file.size() <= _SMALL
        parquet = pq.ParquetFile(pa.BufferReader(file.read_buffer()) if small else file, pre_buffer=False)
        table = parquet.read(read_columns(adversarial=False), use_threads=False)
        return table.replace_schema_metadata(None), parse_json(parquet.metadata.metadata[METADATA])


def _of_files(store: Store, files: Mapping[str, tuple[pa.Table, dict[str, Any]]]) -> Iterator[tuple[str, Record]]:
    tables, metadata = zip(*files.values(), strict=True)
    places = list(pairwise(accumulate(map(len, tables), initial=0)))
    return _checked(store, arrays_of(pa.concat_tables(tables)), list(files), metadata, places)


def _of_pack(store: Store, pack: Path, groups: Sequence[tuple[str, int]]) -> Iterator[tuple[str, Record]]:
    arrays, starts = pack_columns(pack)
    places = [(starts[group], starts[group + 1]) for _, group in groups]
    metadata = [parse_json(arrays[BLOCK][start]) for start, _ in places]
    return _checked(store, arrays, [key for key, _ in groups], metadata, places)


def _checked(
    store: Store,
    arrays: Mapping[str, Any],
    keys: Sequence[str],
    metadata: Sequence[Mapping[str, Any]],
    places: Sequence[tuple[int, int]],
) -> Iterator[tuple[str, Record]]:
    """The blocks at these places of the columns, by key. Raises AlteredError, without saying what is wrong where."""
    records = []
    for key, fields, (start, end) in zip(keys, metadata, places, strict=True):
        own = {name: column[start:end] for name, column in arrays.items()}
        records.append(store.read(key, columns=(own, fields)))
    if not all(consistent(list(blocks)) for _, blocks in groupby(records, key=attrgetter("cell"))):
        raise AlteredError("a block contradicts itself")
    return zip(keys, records, strict=True)
