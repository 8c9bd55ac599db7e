"""`models.toml` of a results folder: what readers of a leaderboard want to know of its models.

[[model]]
model = "net.py:build@trades.safetensors"   # as the tables name it
name = "TRADES, WRN-34-10"
paper = "Zhang et al. 2019, arXiv 1901.08573"
architecture = "WRN-34-10"
extra_data = "none"
link = "https://github.com/yaodongyu/TRADES"
licence = "MIT"
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gauntlet.leaderboard.report.model_table import ModelDescription

FILE = "models.toml"
_FIELDS = tuple(ModelDescription.__dataclass_fields__)


class DescriptionError(ValueError):
    """`models.toml` is wrong; the message names the key, its value and what is accepted."""


def read_descriptions(root: Path) -> dict[str, ModelDescription]:
    """The descriptions by model; empty without a file. Raises DescriptionError."""
    path = root / FILE
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DescriptionError(f"{path} cannot be read: {error}") from error
    if unknown := [key for key in table if key != "model"]:
        raise DescriptionError(f"{path} has an unknown key {unknown[0]!r}: describe each model in a table [[model]]")
    tables = table.get("model", [])
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        raise DescriptionError(f"{path}: write a table [[model]], with two brackets, for each model")
    found: dict[str, ModelDescription] = {}
    for number, fields in enumerate(tables, start=1):
        description = _description(fields, f"{path}, model {number}")
        if description.model in found:
            raise DescriptionError(f"{path} describes model {description.model!r} twice")
        found[description.model] = description
    return found


def unknown_models(descriptions: Mapping[str, ModelDescription], models: frozenset[str]) -> list[str]:
    """A sentence for each described model that no run has."""
    lines = []
    for model in descriptions:
        if model not in models:
            near = difflib.get_close_matches(model, sorted(models), 1, 0.5)
            lines.append(
                f"{FILE} describes {model!r}, which no run has" + (f"; did you mean {near[0]!r}?" if near else "")
            )
    return lines


def _description(fields: Mapping[str, Any], where: str) -> ModelDescription:
    for key, value in fields.items():
        if key not in _FIELDS:
            near = difflib.get_close_matches(key, _FIELDS, 1, 0.5)
            raise DescriptionError(
                f"{where}: unknown key {key!r}"
                + (f"; did you mean {near[0]}?" if near else "")
                + f" Keys are {', '.join(_FIELDS)}"
            )
        if not isinstance(value, str):
            raise DescriptionError(f"{where}: {key}={value!r} must be a text in quotes")
    if not fields.get("model"):
        raise DescriptionError(f"{where}: model is missing: give the name that the tables have")
    if (link := fields.get("link", "")) and not link.startswith(("https://", "http://")):
        raise DescriptionError(f"{where}: link={link!r} must begin with https:// or http://")
    return ModelDescription(**fields)
