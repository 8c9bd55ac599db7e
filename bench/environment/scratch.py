"""Where temporary files of small evaluations lie: in memory, where the system offers a folder there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_MEMORY = Path("/dev/shm")  # noqa: S108  # tempfile makes a private folder in it
_MOST, _ROOM = 2**28, 8
"""The largest size in bytes of what goes to memory, and how many times that size must be free there."""


def scratch_folder(size: int) -> str | None:
    """The folder for temporary files of about `size` bytes; None: that of `tempfile`, as also where TMPDIR is set.

    On disk, each file of a store waits until it is written.
    """
    if "TMPDIR" in os.environ or size > _MOST or not os.access(_MEMORY, os.W_OK | os.X_OK):
        return None
    try:
        free = shutil.disk_usage(_MEMORY).free
    except OSError:
        return None
    return str(_MEMORY) if free >= _ROOM * size else None
