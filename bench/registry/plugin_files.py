"""Plain Python files that register models, attacks, defenses and data: `--plugin mine.py`."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from pathlib import Path

from gauntlet.bench.registry.import_file import ImportSpecError, import_object


class PluginError(ValueError):
    """A plugin cannot be loaded; the message says why."""


def load_plugins(files: Iterable[str]) -> None:
    """Run these files, each once: one that is imported already is run again only where it has changed.

    Raises PluginError for a file that is not there, that fails, or that registers a name that is taken.
    """
    for file in files:
        if not file.endswith(".py"):
            raise PluginError(
                f"plugin {file!r} is no Python file: write FILE.py (what is installed is found by its entry points)"
            )
        try:
            # Any name will do that every file has.
            import_object(f"{file}:__name__")
        except ImportSpecError as error:
            raise PluginError(f"plugin {file!r} cannot be loaded: {error}{_line(file, error)}") from error


def load_recorded(files: Iterable[str]) -> None:
    """Run the plugins that a stored run was made with. Raises PluginError."""
    for file in files:
        if not Path(file).is_file():
            raise PluginError(
                f"plugin {file!r} of the run is not there (looked in {Path.cwd()}): run from the folder where it lies, or name "
                "it by --plugin, which verify and show take"
            )
        load_plugins([file])


def _line(file: str, error: ImportSpecError) -> str:
    """Where in the file it failed."""
    cause = error.__cause__
    frames = traceback.extract_tb(cause.__traceback__) if cause is not None else []
    lines = [frame.lineno for frame in frames if Path(frame.filename) == Path(file).resolve()]
    return f" (line {lines[-1]})" if lines else ""
