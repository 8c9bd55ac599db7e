"""The commit of the working folder."""

from __future__ import annotations

import subprocess
from functools import cache


@cache
def commit() -> tuple[str | None, bool]:
    """The commit of the working folder, and whether tracked files differ from it; (None, False) outside git."""
    try:
        head = _git("rev-parse", "HEAD")
        return head, bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, False


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)  # noqa: S603, S607
    return done.stdout.strip()
