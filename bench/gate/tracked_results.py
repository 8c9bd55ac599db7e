"""Results that come with a change under version control: a gate must not believe them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from gauntlet.bench.config.schema import ConfigError

_SECONDS = 60


def refuse_tracked(out: Path, reuse: Path | None = None) -> None:
    """Raise ConfigError if git tracks a file of the results folder, or of one that is reused: a change could bring verdicts."""
    for name, folder in (("out", out), ("reuse", reuse)):
        if folder is not None:
            _refuse(name, folder)


def _refuse(name: str, folder: Path) -> None:
    if tracked := tracked_file(folder):
        raise ConfigError(
            f"{name}={str(folder)!r} holds results that git tracks, such as {tracked}: they come with the change, so that a gate "
            "cannot rely on them. Remove them from version control and add the folder to .gitignore, or name another folder"
        )


def tracked_file(folder: Path) -> str:
    """The first file below the folder that git tracks; empty if there is none, or where there is no repository or no git."""
    if not folder.is_dir():
        return ""
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(folder.resolve()), "ls-files", "-z", "--", "."],  # noqa: S607
            capture_output=True,
            timeout=_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.split(b"\0")[0].decode("utf-8", "replace")
