"""The files that hold a data set, by their suffixes; importing this module imports no reader."""

from __future__ import annotations

from pathlib import Path
from typing import Final

FILE_SUFFIXES: Final = (".npz", ".parquet")
"""In lower case; `catalog.py` has a reader for each."""
FILE_FORMS: Final = "FILE.npz with arrays images and labels, FILE.parquet"
"""The same, as error messages list them."""


def is_data_file(path: Path) -> bool:
    """Whether the suffix of `path` is that of a data file; the file need not exist."""
    return path.suffix.lower() in FILE_SUFFIXES
