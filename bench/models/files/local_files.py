"""Checks of files that users name: missing files, folders and failed downloads are reported at once."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gauntlet.bench.models.parts.errors import MissingFileError, ModelError

_HEAD = 512
_SHOWN = 3


def check_file(path: Path, what: str) -> Path:
    """Check that `path` is a file with content, and return it; `what` names it in errors, such as "weights file".

    Raises ModelError if it is missing, a folder, empty, a web page, or a pointer of Git LFS.
    """
    named = f"{what} {str(path)!r}"
    if path.is_dir():
        inside = sorted(child.name for child in path.iterdir() if child.is_file())[:_SHOWN]
        held = f" (it holds {', '.join(inside)})" if inside else ""
        raise ModelError(f"{named} is a folder{held}: name a file in it")
    if not path.is_file():
        raise MissingFileError(f"{named} is not there (looked in {Path.cwd()})")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD).lstrip()
    except OSError as error:
        raise ModelError(f"{named} cannot be read: {error}") from error
    if not head:
        raise ModelError(f"{named} is empty: its download or its writing was cut off")
    if head.startswith(b"<") and (b"<html" in head.lower() or b"<!doctype" in head.lower()):
        raise ModelError(f"{named} holds a web page: the download answered with a page; open its address in a browser")
    if head.startswith(b"version https://git-lfs"):
        raise ModelError(f"{named} is a pointer of Git LFS, not the file itself: run git lfs pull")
    return path


def file_sha256(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
