"""The configuration as it is written: which file applies, and what stands in it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gauntlet.attacks.registry.settings import split_list

DEFAULT = Path(__file__).parents[1] / "default.toml"


class ConfigError(ValueError):
    """The configuration or an option is wrong; the message names it and the way out."""


def read_file(folder: Path, file: str | None = None) -> dict[str, Any]:
    """The table of `file`, or of what applies in `folder`: `gauntlet.toml`, `[tool.gauntlet]` of pyproject.toml, or the default
    benchmark's. Raises ConfigError."""
    if file is not None:
        path = Path(file)
        if not path.is_file():
            raise ConfigError(f"config file {file!r} does not exist")
        table = _toml(path)
        return _tool_table(table) or {} if path.name == "pyproject.toml" else table
    if (folder / "gauntlet.toml").is_file():
        return _toml(folder / "gauntlet.toml")
    if (folder / "pyproject.toml").is_file():
        found = _tool_table(_toml(folder / "pyproject.toml"))
        if found is not None:
            return found
    return _toml(DEFAULT)


def plugin_files(given: Sequence[str], folder: Path) -> tuple[str, ...]:
    """The plugins that an option names, or else the configuration that applies in `folder`. Raises ConfigError."""
    return plugins_of({"plugin": given} if given else read_file(folder))


def plugins_of(table: Mapping[str, Any]) -> tuple[str, ...]:
    """The plugins that a table names. Raises ConfigError."""
    return texts(table["plugin"], "plugin") if table.get("plugin") else ()


def texts(value: Any, name: str) -> tuple[str, ...]:
    """A text or a list of texts, each perhaps a list separated by commas. Raises ConfigError."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, Sequence) or not all(isinstance(one, str) for one in values):
        raise ConfigError(f"{name}={value!r} must be a text or a list of texts")
    found = tuple(part for one in values for part in split_list(one))
    if not found:
        raise ConfigError(f"{name}={value!r} names nothing")
    return found


def _tool_table(pyproject: Mapping[str, Any]) -> dict[str, Any] | None:
    found = pyproject.get("tool", {}).get("gauntlet")
    if found is not None and not isinstance(found, dict):
        raise ConfigError(f"tool.gauntlet={found!r} in pyproject.toml must be a table: write [tool.gauntlet]")
    return found


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
