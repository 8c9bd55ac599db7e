"""The clean images that stored examples differ from: once for all cells of a results folder, below `clean/`.

A file has the images of one block of the data, and is named by their digest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gauntlet.leaderboard.examples.differences import Levels, clean_digest

FOLDER: Final = "clean"
COLUMN: Final = "clean"
"""The column of a block with its clean images; in the block's metadata, their digest."""
Replace: TypeAlias = Callable[[Path, Callable[[BinaryIO], object]], None]
FindClean: TypeAlias = Callable[[str], Sequence[Levels]]
"""Finds the clean images of a digest; raises OSError, ArrowException or ValueError."""
_MEMORY_LIMIT: Final = 2**24
"""Bytes of images that are kept in memory; those that were read last are kept in any case."""
_File: TypeAlias = tuple[Path, int, int]
"""A file with its size and time of change; another file of that name is another entry."""
_kept: dict[_File, tuple[Sequence[Levels], int]] = {}
"""Images that were read, the latest last, and their bytes."""
_lock = Lock()


def no_clean(digest: str) -> Sequence[Levels]:
    """Finds nothing: for blocks that have their clean images with them."""
    raise FileNotFoundError(f"the clean images {digest[:16]}, which its examples differ from, are missing")


def clean_path(root: Path, digest: str) -> Path:
    """Where the images of that digest lie, or would lie."""
    return root / FOLDER / digest[:2] / f"{digest}.parquet"


def has_clean(root: Path, digest: str) -> bool:
    """Whether the clean images of that digest are there, whole."""
    try:
        read_clean(root, digest)
    except (OSError, ValueError, pa.ArrowException):
        return False
    return True


def read_clean(root: Path, digest: str) -> Sequence[Levels]:
    """The clean images of that digest. Raises FileNotFoundError, OSError, ArrowException, and ValueError for other images."""
    path = clean_path(root, digest)
    found = path.stat()
    file = path, found.st_size, found.st_mtime_ns
    with _lock:
        known = _kept.pop(file, None)
    if known is None:
        images = _read(path, digest)
        known = images, sum(image.nbytes for image in images)
    with _lock:
        _kept[file] = known
        while len(_kept) > 1 and sum(size for _, size in _kept.values()) > _MEMORY_LIMIT:
            del _kept[next(iter(_kept))]
    return known[0]


def keep_apart(table: pa.Table, root: Path, metadata: Mapping[str, Any], replace: Replace) -> pa.Table:
    """The table of a block without its clean images, which the folder then has for all cells. `replace` writes a file.

    Raises ValueError where they are not those of the digest that the metadata names: it is the name of the file.
    """
    if COLUMN not in table.column_names:
        return table
    digest, shape = metadata[COLUMN], metadata["shape"]
    images = [np.frombuffer(raw, dtype=np.uint8).reshape(shape) for raw in table[COLUMN].to_pylist()]
    if clean_digest(images) != digest:
        raise ValueError(f"the clean images of a block are not those of its digest {str(digest)[:16]!r}")
    if not has_clean(root, digest):
        replace(clean_path(root, digest), lambda file: write_clean(file, images))
    return table.drop_columns([COLUMN])


def write_clean(file: BinaryIO, images: Sequence[Levels]) -> None:
    """Write clean images."""
    columns = {
        "shape": pa.array([list(image.shape) for image in images], pa.list_(pa.int64())),
        "levels": pa.array([np.ascontiguousarray(image).tobytes() for image in images], pa.binary()),
    }
    pq.write_table(pa.table(columns), file, compression="zstd", use_dictionary=False, write_statistics=False)


def _read(path: Path, digest: str) -> Sequence[Levels]:
    """The images of a file. Raises as `read_clean`."""
    with pa.OSFile(str(path), "rb") as file:
        table = pq.ParquetFile(file, pre_buffer=False).read(use_threads=False)
    pairs = zip(table["levels"].to_pylist(), table["shape"].to_pylist(), strict=True)
    images = tuple(np.frombuffer(levels, dtype=np.uint8).reshape(shape) for levels, shape in pairs)
    if clean_digest(images) != digest:
        raise ValueError(f"{path} does not have the images of its name")
    return images
