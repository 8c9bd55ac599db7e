"""Configuration files: the one that applies, and its table."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gauntlet.attacks.registry.settings import split_list
from gauntlet.leaderboard.results.user_text import read_user_text

DEFAULT = Path(__file__).parents[1] / "default.toml"
MOST_BYTES: Final = 2**22
"""Largest size in bytes of a configuration file."""
_DEEPEST: Final = 20
_PART: Final = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*"""
_DEEP_KEY: Final = re.compile(rf"(?<![\w-])(?:{_PART}){{{_DEEPEST}}}")
"""A key with that many points: tomllib takes memory in the square of their number."""


class ConfigError(ValueError):
    """An invalid configuration or option; the message names it and the way out."""


def read_file(folder: Path, file: str | None = None) -> dict[str, Any]:
    """The table of `file`, or else of the file that applies in `folder`: gauntlet.toml, [tool.gauntlet] of pyproject.toml, or the
    default benchmark. Raises ConfigError."""
    if file is not None:
        path = Path(file)
        if not path.is_file():
            raise ConfigError(f"configuration file {file!r} does not exist: correct its name")
        table = _toml(path)
        return _tool_table(table) or {} if path.name == "pyproject.toml" else table
    configured = _configured(folder)
    return _toml(DEFAULT) if configured is None else configured


def is_configured(folder: Path) -> bool:
    """Whether gauntlet.toml or [tool.gauntlet] of pyproject.toml applies in `folder`. Raises ConfigError."""
    return _configured(folder) is not None


def _configured(folder: Path) -> dict[str, Any] | None:
    if (folder / "gauntlet.toml").is_file():
        return _toml(folder / "gauntlet.toml")
    if (folder / "pyproject.toml").is_file():
        return _tool_table(_toml(folder / "pyproject.toml"))
    return None


def plugin_files(given: Sequence[str], folder: Path) -> tuple[str, ...]:
    """The plugins `given` as options, or else those of the configuration that applies in `folder`. Raises ConfigError."""
    return plugins_of({"plugin": given} if given else read_file(folder))


def plugins_of(table: Mapping[str, Any]) -> tuple[str, ...]:
    """The plugins of a table. Raises ConfigError."""
    return texts(table["plugin"], "plugin") if table.get("plugin") else ()


def texts(value: Any, name: str) -> tuple[str, ...]:
    """The items of a string or a list of strings, each of which may be a comma-separated list. Raises ConfigError."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, Sequence) or not all(isinstance(one, str) for one in values):
        raise ConfigError(f"{name}={value!r} must be a string or a list of strings")
    items = tuple(part for one in values for part in split_list(one))
    if not items:
        raise ConfigError(f"{name}={value!r} is empty: name at least one, or leave it out")
    return items


def _tool_table(pyproject: Mapping[str, Any]) -> dict[str, Any] | None:
    tools = pyproject.get("tool", {})
    if not isinstance(tools, dict):
        raise ConfigError(f"tool={tools!r} in pyproject.toml must be a table: write [tool.gauntlet]")
    table = tools.get("gauntlet")
    if table is not None and not isinstance(table, dict):
        raise ConfigError(f"tool.gauntlet={table!r} in pyproject.toml must be a table: write [tool.gauntlet]")
    return table


def _toml(path: Path) -> dict[str, Any]:
    try:
        text = read_user_text(path)
        if len(text) > MOST_BYTES:
            raise ConfigError(f"{path} is not read: it has {len(text)} characters, and at most {MOST_BYTES} are read")
        if _DEEP_KEY.search(text):
            raise ConfigError(
                f"{path} is not read: it has a key of more than {_DEEPEST} parts with points between them"
            )
        return tomllib.loads(text)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path} is not read: its values are nested too deeply; write lists of names") from None
