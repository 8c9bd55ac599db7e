"""Packs: the blocks of a finished cell in one Parquet file with a row group for each block.

A row group has the columns of a block file, and one more, whose first row is the block's metadata: the digests of a block are
the same as in a file of its own. A pack is named by the digest of its blocks. Beside it lies its index, which says which block
each row group is; a block that is struck from the index is no longer offered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from gauntlet.leaderboard.examples.clean_images import read_clean
from gauntlet.leaderboard.results.block_file import (
    METADATA,
    AlteredError,
    SchemaError,
    arrays_of,
    checked_record,
    read_columns,
)
from gauntlet.leaderboard.results.errors import DamagedBlockError, StoreError
from gauntlet.leaderboard.results.record import CellInfo, Record
from gauntlet.leaderboard.results.sealed_json import parse_json

T = TypeVar("T")

BLOCK: Final = "block"
"""The column with the metadata of a block, in its first row."""


@dataclass(frozen=True)
class PackedBlock:
    """The place of a block: its pack, and the number of its row group."""

    pack: Path
    group: int
    leaf: str
    """The hash of its content, as the index states it."""
    cell: CellInfo
    """Its cell, as the index states it."""


def named(place: str, read: Callable[[], T]) -> T:
    """Read a block of a pack or of a file of its own; errors name its place. Raises StoreError, DamagedBlockError."""
    try:
        return read()
    except SchemaError as error:
        raise StoreError(f"{place} cannot be read: {error}") from error
    except AlteredError as error:
        raise DamagedBlockError(f"{place} was altered: {error}") from error
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, IndexError) as error:
        raise DamagedBlockError(f"{place} is damaged ({error})") from error


def write_pack(sink: BinaryIO, tables: Iterable[pa.Table]) -> None:
    """Write the tables of block files as the row groups of one file, one at a time."""
    writer = None
    try:
        for table in tables:
            text = table.schema.metadata[METADATA].decode()
            column = pa.array([text, *[None] * (table.num_rows - 1)], pa.string())
            group = table.replace_schema_metadata(None).append_column(BLOCK, column)
            if "difference" not in group.column_names:
                # Row groups have the same columns.
                group = group.append_column("difference", pa.nulls(table.num_rows, pa.binary()))
            last = ["difference", BLOCK]
            group = group.select([*(name for name in group.column_names if name not in last), *last])
            writer = writer or pq.ParquetWriter(
                sink,
                group.schema,
                compression={"adversarial": "zstd", "difference": "zstd", BLOCK: "zstd"},
                use_dictionary=False,
                write_statistics=False,
            )
            writer.write_table(group, row_group_size=group.num_rows)
    finally:
        if writer is not None:
            writer.close()


def pack_name(leaves: Sequence[str]) -> str:
    """The name of the pack of the blocks with these leaves, in order."""
    return hashlib.sha256(" ".join(["pack", *leaves]).encode()).hexdigest()


def read_packed(block: PackedBlock, *, adversarial: bool) -> tuple[Record, str]:
    """A block of a pack, its examples only on demand; and the hash of its content. Raises as `block_file.from_file`."""
    arrays = _arrays(block, adversarial=adversarial)
    metadata = _metadata(arrays)
    find = partial(read_clean, block.pack.parent.parent)
    return checked_record(arrays, metadata, adversarial=adversarial, find_clean=find), str(metadata["leaf"])


def packed_metadata(block: PackedBlock) -> dict[str, Any]:
    """The metadata of a block of a pack. Raises as `block_file.from_file`."""
    return _metadata(_arrays(block, adversarial=False))


def _arrays(block: PackedBlock, *, adversarial: bool) -> dict[str, Any]:
    """The columns of a block; without its examples those of the whole pack are read at once."""
    found = block.pack.stat()
    if not adversarial:
        try:
            whole, starts = _verdicts(block.pack, found.st_size, found.st_mtime_ns)
            start, end = starts[block.group : block.group + 2]
            return {name: column[start:end] for name, column in whole.items()}
        except (pa.ArrowException, OSError, ValueError):
            # Another block may be what cannot be read.
            pass
    opened = _opened(block.pack, found.st_size, found.st_mtime_ns)
    columns = [*read_columns(adversarial=adversarial), BLOCK]
    return _with_blocks(opened.read_row_group(block.group, columns=columns, use_threads=False))


def pack_columns(pack: Path) -> tuple[dict[str, Any], list[int]]:
    """All blocks of a pack without their examples, unchecked, and where each begins; the last number is that of all samples.

    The column `BLOCK` has a block's metadata in its first row. Raises ArrowException, OSError, ValueError and KeyError.
    """
    found = pack.stat()
    return _verdicts(pack, found.st_size, found.st_mtime_ns)


def _with_blocks(table: pa.Table) -> dict[str, Any]:
    return {**arrays_of(table), BLOCK: table[BLOCK].to_pylist()}


def packed_table(block: PackedBlock) -> pa.Table:
    """The block as the table of a file of its own."""
    found = block.pack.stat()
    table = _opened(block.pack, found.st_size, found.st_mtime_ns).read_row_group(block.group, use_threads=False)
    text = table[BLOCK][0].as_py()
    return table.drop_columns([BLOCK]).replace_schema_metadata({METADATA: text.encode()})


def packed_size(block: PackedBlock) -> int:
    """Bytes of a block in its pack."""
    found = block.pack.stat()
    group = _opened(block.pack, found.st_size, found.st_mtime_ns).metadata.row_group(block.group)
    return sum(group.column(number).total_compressed_size for number in range(group.num_columns))


def _metadata(arrays: Mapping[str, Any]) -> dict[str, Any]:
    if not arrays[BLOCK] or arrays[BLOCK][0] is None:
        raise AlteredError("a block has no metadata")
    metadata: dict[str, Any] = parse_json(arrays[BLOCK][0])
    return metadata


@lru_cache(maxsize=4)
def _opened(path: Path, size: int, changed: int) -> pq.ParquetFile:
    """The pack, opened; another file of that name is another entry."""
    return pq.ParquetFile(pa.OSFile(str(path), "rb"), pre_buffer=False)


@lru_cache(maxsize=2)
def _verdicts(path: Path, size: int, changed: int) -> tuple[dict[str, Any], list[int]]:
    """All blocks of a pack without their examples, read at once, and where each begins."""
    opened = _opened(path, size, changed)
    starts = [0]
    for number in range(opened.num_row_groups):
        starts.append(starts[-1] + opened.metadata.row_group(number).num_rows)
    table = opened.read(columns=[*read_columns(adversarial=False), BLOCK], use_threads=False)
    return _with_blocks(table), starts
