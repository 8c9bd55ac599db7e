"""JSON files of a results folder, with a digest of their content: an altered digit is damage, not another figure.

The digest covers the name of what the file is about too, so that a file in the place of another one is found. It has no key: it
shows damage, and not who wrote a file. Files without a digest, of earlier versions, are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

DIGEST: Final = "digest"
"""The field that holds the digest."""
MOST_BYTES: Final = 2**29
"""Largest size in bytes of a file that is read: a plan of 100,000 cells of the longest of our attacks takes about half."""


def sealed(fields: Mapping[str, Any], name: str, **unsealed_fields: Any) -> str:
    """The fields as JSON text with the digest; `name`: what they are about. `unsealed_fields` may be edited."""
    return json.dumps({**fields, **unsealed_fields, DIGEST: _digest(fields, name)}, indent=1)


def read_sealed(path: Path | str, name: str, without: Collection[str] = ()) -> dict[str, Any]:
    """The fields of a file that `sealed` wrote, without the digest; `without`: the names of those that it does not cover.

    Raises ValueError for anything else, FileNotFoundError and other OSErrors.
    """
    return unsealed(read_json(path), name, without)


def unsealed(fields: Any, name: str, without: Collection[str] = ()) -> dict[str, Any]:
    """The fields that `sealed` wrote, from their JSON value. Raises ValueError for anything else."""
    if not isinstance(fields, dict):
        raise ValueError(f"it holds a {type(fields).__name__} in place of named fields")
    held = {key: value for key, value in fields.items() if key != DIGEST}
    covered = {key: value for key, value in held.items() if key not in without}
    if DIGEST in fields and fields[DIGEST] != _digest(covered, name):
        raise ValueError("it was altered: its digest does not match its content")
    return held


def read_json(path: Path | str) -> Any:
    """The content of a JSON file. Raises ValueError where it is none, too large or too deeply nested; OSError."""
    with open(path, "rb") as file:  # noqa: PTH123  # of 80,000 notes, few of which are there
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes, the most that are read")
    return parse_json(content)


def parse_json(text: str | bytes) -> Any:
    """The value of JSON text. Raises ValueError where it is none, or too deeply nested."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply to be read") from None


def _digest(fields: Mapping[str, Any], name: str) -> str:
    # As JSON will give it back: tuples become lists.
    return hashlib.sha256(f"{name}\n{json.dumps(fields, sort_keys=True)}".encode()).hexdigest()


def files_of_shards(folder: Path, name: str) -> list[Path]:
    """The files of a folder that shards wrote on the cell `name`, each its own, sorted; none where there is no folder."""
    start = f"{name}.shard-"
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.name.startswith(start))
    return []
