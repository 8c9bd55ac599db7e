"""Plugins: Python files that register models, attacks, defenses and data, given by `--plugin FILE.py`."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from pathlib import Path

from gauntlet.bench.registry.import_file import ImportSpecError, import_object


class PluginError(ValueError):
    """A plugin cannot be loaded; the message says why."""


def load_plugins(files: Iterable[str]) -> None:
    """Import plugin files. A file that is imported already is imported again only if it has changed.

    Raises PluginError for a file that does not exist, that fails, or that registers a name that is taken.
    """
    for file in files:
        if not file.endswith(".py"):
            raise PluginError(
                f"plugin {file!r} is not a Python file: write FILE.py (installed plugins are loaded by their entry points)"
            )
        try:
            # Every module has the name `__name__`.
            import_object(f"{file}:__name__")
        except ImportSpecError as error:
            raise PluginError(f"plugin {file!r} cannot be loaded: {error}{_line(file, error)}") from error


def load_recorded(files: Iterable[str]) -> None:
    """Import the plugins that a stored run was made with. Raises PluginError."""
    for file in files:
        if not Path(file).is_file():
            raise PluginError(
                f"plugin {file!r} of the run does not exist (searched in {Path.cwd()}): run from its folder, or name the file by "
                "--plugin, an option of verify and show"
            )
        load_plugins([file])


def _line(file: str, error: ImportSpecError) -> str:
    """The line of the file that failed, as ` (line N)`; empty if it is unknown."""
    cause = error.__cause__
    frames = traceback.extract_tb(cause.__traceback__) if cause is not None else []
    lines = [frame.lineno for frame in frames if Path(frame.filename) == Path(file).resolve()]
    return f" (line {lines[-1]})" if lines else ""
