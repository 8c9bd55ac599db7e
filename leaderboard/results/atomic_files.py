"""Atomic file writing: a file appears whole or not at all, whenever the process is killed.

The content goes to a temporary file in the same folder, is flushed to the disk, and then takes its name.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

from gauntlet.leaderboard.results.errors import WriteError
from gauntlet.leaderboard.results.leftovers import temporary_name

_NO_LINKS = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EACCES}
)
"""What `link` answers on file systems that have no hard links."""

Save = Callable[[BinaryIO], object]
"""Writes the content to a binary file object."""


def write_once(path: Path, save: Save) -> bool:
    """Create a file unless it exists, and return whether it was created; of several writers the first wins.

    On file systems without hard links, of two writers at the same moment the last wins. Raises WriteError.
    """
    with _reported(path), _temporary(path) as temporary:
        _write(temporary, save)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Of two writers that come here at once the last wins: both wrote a whole file.
            if path.exists():
                return False
            temporary.replace(path)
    return True


def sync_folder(folder: Path) -> None:
    """Flush the names of a folder's files to the disk, where the system can. Raises WriteError."""
    with _reported(folder):
        try:
            handle = os.open(folder, os.O_RDONLY)
        except PermissionError:  # Windows opens no folder
            return
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def replace_file(path: Path, save: Save) -> None:
    """Create or replace a file. Raises WriteError; an older file is then intact."""
    with _reported(path), _temporary(path) as temporary:
        _write(temporary, save)
        temporary.replace(path)


def replace_bytes(path: Path, content: bytes) -> None:
    """Create or replace a file. Raises WriteError; an older file is then intact."""
    replace_file(path, partial(_put, content))


def replace_text(path: Path, text: str) -> None:
    """Create or replace a text file in UTF-8, line ends as given. Raises WriteError; an older file is then intact."""
    replace_bytes(path, text.encode())


def replace_files(contents: Mapping[Path, bytes]) -> None:
    """Create or replace several files, once all of them are written. Raises WriteError; all older files are then intact."""
    with contextlib.ExitStack() as stack:
        staged = {}
        for path, content in contents.items():
            with _reported(path):
                if path.is_dir():
                    raise IsADirectoryError(f"a folder of the name {path.name!r} is in its place")
                staged[path] = stack.enter_context(_temporary(path))
                _write(staged[path], partial(_put, content))
        for path, temporary in staged.items():
            with _reported(path):
                temporary.replace(path)


def remove_file(path: Path) -> None:
    """Remove a file if it is there. Raises WriteError."""
    with _reported(path):
        path.unlink(missing_ok=True)


def move_file(path: Path, target: Path) -> Path:
    """Move a file within a file system; where the name is taken, a number is added. Returns its new place. Raises WriteError."""
    with _reported(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        numbered = (target.with_stem(f"{target.stem}-{number}") for number in itertools.count(2))
        place = next(place for place in itertools.chain([target], numbered) if not place.exists())
        path.rename(place)
    return place


def check_writable(path: Path) -> None:
    """Raise WriteError where no file can be created in the folder of `path`."""
    with _reported(path), _temporary(path) as temporary:
        temporary.touch()


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """The name of a temporary file beside `path`, which is deleted in the end if it is still there."""
    temporary = temporary_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Raise WriteError in place of OSError."""
    try:
        yield
    except OSError as error:
        raise WriteError.of(path, error) from error


def _write(temporary: Path, save: Save) -> None:
    with temporary.open("xb") as file:
        save(file)
        file.flush()
        os.fsync(file.fileno())


def _put(content: bytes, file: BinaryIO) -> None:
    file.write(content)
