"""Parquet files with encoded images, as Hugging Face writes them, read one row group at a time.

The column of images has structs with `bytes` (the content of an image file) and `path`, or the bytes themselves; the column
of labels has whole numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gauntlet.bench.data.formats.encoded_images import encoded_images
from gauntlet.bench.data.formats.raw_data import RawData, integer_labels, unreadable_file
from gauntlet.bench.data.samples.preprocessing import PLAIN, Preprocessing
from gauntlet.bench.environment.size_limits import MOST_IN_MEMORY, MOST_LABELS, SizeLimitError, check_size
from gauntlet.leaderboard.results.sealed_json import parse_json

IMAGES = ("image", "images", "img")
LABELS = ("label", "labels", "fine_label", "target")
_SHOULD_BE = "it should have a column of encoded images (bytes) and one of labels"


def read_parquet(paths: Sequence[Path], preprocessing: Preprocessing = PLAIN) -> RawData:
    """Read the rows of the files in order; labels are read now, images later by row group.

    Names are the paths in the structs if they are unique. Raises ValueError.
    """
    tables = [_labels(path) for path in paths]
    groups = [(path, group) for path, (_, _, sizes) in zip(paths, tables, strict=True) for group in range(len(sizes))]
    begins = np.cumsum([0, *(size for _, _, sizes in tables for size in sizes)])
    files = np.cumsum([0, *(sum(sizes) for _, _, sizes in tables)])
    if not begins[-1]:
        raise unreadable_file(paths[0], "it has no rows", _SHOULD_BE)
    # The last row group is cached, since sets are usually read in order.
    content = lru_cache(maxsize=1)(lambda number: _group(*groups[number]))

    def fetch(rows: Sequence[int]) -> list[bytes]:
        places = np.searchsorted(begins, rows, side="right") - 1
        values = [b""] * len(rows)
        for number in np.unique(places).tolist():
            for at in np.flatnonzero(places == number).tolist():
                values[at] = content(number)[rows[at] - int(begins[number])].as_py()
        return values

    def describe(row: int) -> str:
        file = int(np.searchsorted(files, row, side="right")) - 1
        return f"the image of row {row - int(files[file])} of {str(paths[file])!r}"

    return RawData(
        images=encoded_images(fetch, describe, int(begins[-1]), preprocessing),
        labels=np.concatenate([values for values, _, _ in tables]),
        names=unique_names([name for _, values, _ in tables for name in values]),
        classes=_classes(paths[0]),
    )


def column(names: Sequence[str], wanted: Sequence[str], what: str, path: Path) -> str:
    """The name of the column of images or labels. Raises ValueError."""
    match = next((name for name in wanted if name in names), None)
    if match is None:
        raise unreadable_file(
            path, f"its columns are {', '.join(names)}", f"one of {', '.join(wanted)} must hold the {what}"
        )
    return match


def encoded_column(images: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    """The bytes of a column of images. Raises ValueError for a column of another type, and for rows without bytes."""
    import pyarrow.compute as pc  # only reading an image file needs it

    if pa.types.is_struct(images.type) and images.type.get_field_index("bytes") >= 0:
        images = pc.struct_field(images, "bytes")
    if not (pa.types.is_binary(images.type) or pa.types.is_large_binary(images.type)):
        raise unreadable_file(path, f"its images are of type {images.type}", _SHOULD_BE)
    if images.null_count:
        raise unreadable_file(
            path, f"{images.null_count} rows have a path but no bytes", "save the images themselves too"
        )
    return images


def unique_names(names: Sequence[str | None]) -> tuple[str, ...] | None:
    """The names if every sample has a unique name, else None."""
    own = [name for name in names if name]
    return tuple(own) if len(own) == len(names) == len(set(own)) else None


def _labels(path: Path) -> tuple[np.ndarray, list[str | None], list[int]]:
    """The labels of a file, the paths of its rows, and the sizes of its row groups."""
    import pyarrow.compute as pc

    try:
        with path.open("rb") as file:
            parquet = pq.ParquetFile(file, pre_buffer=False)
            schema = parquet.schema_arrow
            # Runs of one label take no room in the file.
            check_size("its column of labels", 8 * parquet.metadata.num_rows, MOST_LABELS)
            image, label = column(schema.names, IMAGES, "images", path), column(schema.names, LABELS, "labels", path)
            named = (
                pa.types.is_struct(schema.field(image).type) and schema.field(image).type.get_field_index("path") >= 0
            )
            wanted = [label, *([f"{image}.path"] if named else [])]
            table = parquet.read(columns=wanted, use_threads=False)
            sizes = [parquet.metadata.row_group(number).num_rows for number in range(parquet.num_row_groups)]
    except (pa.ArrowException, OSError, SizeLimitError) as error:
        raise unreadable_file(path, error, _SHOULD_BE) from error
    if table[label].null_count:
        raise unreadable_file(path, f"{table[label].null_count} rows have no label", "every image needs one")
    paths = pc.struct_field(table[image], "path").to_pylist() if named else [None] * table.num_rows
    return integer_labels(table[label].to_numpy(), path), paths, sizes


def _group(path: Path, number: int) -> pa.ChunkedArray:
    try:
        with path.open("rb") as file:
            parquet = pq.ParquetFile(file, pre_buffer=False)
            image = column(parquet.schema_arrow.names, IMAGES, "images", path)
            check_size(f"row group {number}", parquet.metadata.row_group(number).total_byte_size, MOST_IN_MEMORY)
            return encoded_column(parquet.read_row_group(number, columns=[image], use_threads=False)[image], path)
    except (pa.ArrowException, OSError, SizeLimitError) as error:
        raise unreadable_file(path, error, _SHOULD_BE) from error


def _classes(path: Path) -> int | None:
    """The number of classes in Hugging Face's description of the columns; None without such a description."""
    with path.open("rb") as file:
        schema = pq.read_schema(file)
    try:
        features: dict[str, Any] = parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return len(features[column(schema.names, LABELS, "labels", path)]["names"])
    except (KeyError, TypeError, ValueError):
        return None


def ordered_shards(paths: Sequence[Path]) -> list[Path]:
    """Sort the files. Raises ValueError if a part of `…-00000-of-00014.parquet` is missing."""
    ordered = sorted(paths)
    numbered = [re.search(r"-(\d+)-of-(\d+)", path.name) for path in ordered]
    there = {int(match[1]) for match in numbered if match}
    missing = [number for match in numbered[:1] if match for number in range(int(match[2])) if number not in there]
    if missing:
        raise unreadable_file(
            ordered[0], f"part {missing[0]} of the same set is missing beside it", "download all parts"
        )
    return ordered
