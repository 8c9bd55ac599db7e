"""The tables [[published]] of a configuration: published figures of models, shown beside measured ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.leaderboard.results.published_figure import CORRUPTIONS, PublishedFigure

_TEXTS = ("model", "name", "data", "threat", "attack", "source", "note")


def read_published(tables: Sequence[dict[str, Any]]) -> tuple[tuple[str, PublishedFigure], ...]:
    """Each table as a pattern of model names and the figure published for them.

    The key `model` is the pattern, and `name` the source's name of the model (default: the pattern); the other keys are the
    fields of `PublishedFigure`. Raises ValueError that names the key, its value and the accepted values.
    """
    return tuple((str(table.get("model", "")), _published(table)) for table in tables)


def _published(table: dict[str, Any]) -> PublishedFigure:
    known = ("name", *(one.name for one in fields(PublishedFigure)))
    if unknown := [key for key in table if key not in known]:
        raise ValueError(f"unknown key {unknown[0]!r} in a published table: use {', '.join(known)}")
    for name in _TEXTS:
        if not isinstance(table.get(name, ""), str):
            raise ValueError(f"{name}={table[name]!r} in a published table must be a string")
    if not table.get("model"):
        raise ValueError(f"model is missing in the published table {table!r}: name the model of the figure")
    for name in ("clean", "robust"):
        value = table.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1):
            raise ValueError(f"{name}={value!r} in a published table must be a share in [0, 1], such as 0.915")
    n = table.get("n", 0)
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ValueError(f"n={n!r} in a published table must be a whole number of samples, at least 0")
    clean, robust, threat = table.get("clean"), table.get("robust"), table.get("threat", "")
    if clean is None and robust is None:
        raise ValueError(
            f"the published table of {table['model']!r} has no figure: give clean, or robust with its threat"
        )
    if (robust is None) != (not threat):
        raise ValueError(
            f"robust={robust!r} and threat={threat!r} in a published table depend on each other: give both or neither"
        )
    return PublishedFigure(
        model=table.get("name") or table["model"],
        data=table.get("data", ""),
        clean=clean,
        robust=robust,
        threat=threat if threat in ("", CORRUPTIONS) else str(ThreatModel.parse(threat)),
        attack=table.get("attack", ""),
        n=n,
        source=table.get("source", ""),
        note=table.get("note", ""),
    )
