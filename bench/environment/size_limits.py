"""Limits on files of others: a few bytes of a compressed file, or of a header, can ask for more memory than there is."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import BinaryIO

MOST_IN_MEMORY = 2**33
"""Largest size in bytes of the content of one file that is read into memory."""
MOST_ON_DISK = 2**37
"""Largest size in bytes of a compressed array that is unpacked into the folder for temporary files."""


MOST_LABELS = 2**28
"""Largest size in bytes of the labels, or of the ids, of a data set: 33 million labels."""


class SizeLimitError(ValueError):
    """A file asks for more than is read; the message has the size and the limit."""


def check_size(what: str, size: int, most: int) -> None:
    """Raise SizeLimitError if `what` has more bytes than `most`."""
    if size > most:
        raise SizeLimitError(f"{what} has {_gibibytes(size)}, and at most {_gibibytes(most)} are read")


def check_archive(file: Path | BinaryIO, most: int = MOST_IN_MEMORY) -> None:
    """Raise SizeLimitError if the entries of a zip archive unpack to more bytes than `most`; other files pass.

    The sizes are those that the archive states, beyond which Python's zipfile and torch read nothing.
    """
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        total = sum(entry.file_size for entry in archive.infolist())
    check_size("its unpacked content", total, most)


def check_unpacked(what: str, size: int) -> None:
    """Raise SizeLimitError if so many bytes are more than `MOST_ON_DISK`, or than the folder for temporary files has room for."""
    check_size(what, size, MOST_ON_DISK)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size > free:
        raise SizeLimitError(
            f"{what} unpacks to {_gibibytes(size)}, and {tempfile.gettempdir()} has {_gibibytes(free)} left (TMPDIR names "
            "another folder)"
        )


def _gibibytes(size: int) -> str:
    return f"{size} bytes ({size / 2**30:.3g} GiB)"
