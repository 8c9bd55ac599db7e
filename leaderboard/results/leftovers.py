"""Temporary files of a results folder: their names say who writes them, so that those of killed processes can be swept."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

OLD: Final = 24 * 3600
"""Seconds after which a temporary file is swept whose writer cannot be asked for: it is on another machine."""
_FOLDERS: Final = (
    *(
        "store",
        "packs",
        "damaged",
        "timings",
        "measured",
        "runs",
        "errors",
        "summaries",
        "clean",
        "gate",
        "tables",
        "pictures",
    ),
)
"""Where a results folder has files of its own, beside its top."""
_NAME: Final = re.compile(r"\..+\.(?:(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-)?[0-9a-f]{32}\.tmp")
"""Earlier versions named no machine and no process."""


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no other writer takes, and that says which process has it."""
    return path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{uuid.uuid4().hex}.tmp")


def sweep(root: Path) -> int:
    """Delete the temporary files and folders below a results folder whose writers are gone, and return their number.

    A file is left alone while its process lives, or, where that cannot be known, until it is `OLD`. What cannot be deleted stays.
    """
    swept = 0
    for path in _temporary_files(root):
        with suppress(OSError):
            if _is_left(path):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
                swept += 1
    return swept


def _temporary_files(root: Path) -> Iterator[Path]:
    """The files and folders with names of temporary ones, in the folders that a results folder has."""
    tops = [os.path.join(root, name) for name in _FOLDERS]  # noqa: PTH118  # of 80,000 blocks
    with suppress(OSError), os.scandir(root) as entries:
        yield from (
            root / entry.name for entry in entries if entry.name.endswith(".tmp") and _NAME.fullmatch(entry.name)
        )
    for top in tops:
        for folder, folders, files in os.walk(top):
            for name in (*folders, *files):
                if name.endswith(".tmp") and _NAME.fullmatch(name):
                    yield Path(folder, name)


def _is_left(path: Path) -> bool:
    named = _NAME.fullmatch(path.name)
    assert named is not None
    # Elsewhere the signal 0 is no question.
    if named["machine"] == _machine() and os.name == "posix":
        return not _is_alive(int(named["process"]))
    return path.stat().st_mtime < time.time() - OLD


def _is_alive(process: int) -> bool:
    if process <= 0:
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        # It is there, and somebody else's.
        return True
    return True


@cache
def _machine() -> str:
    """This machine since it was started, and within it the space in which process numbers are unique: of a container its own."""
    parts = [platform.node()]
    with suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
