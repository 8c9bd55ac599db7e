"""Per-class accuracies as a table with stable types, and as a section of the Markdown report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from gauntlet.leaderboard.report.formatting import NOTHING
from gauntlet.leaderboard.results.escape import markdown as safe
from gauntlet.leaderboard.rows.frames import read_frame, typed_frame
from gauntlet.leaderboard.rows.per_class import ClassFigures, class_gap, per_class
from gauntlet.leaderboard.rows.row import Row

CLASS_DTYPES: Final[Mapping[str, str]] = {
    "threat": "string",
    "data": "string",
    "suite": "string",
    "model": "string",
    "defense": "string",
    "status": "string",
    "label": "Int64",
    "n": "Int64",
    "clean_accuracy": "float64",
    "clean_low": "float64",
    "clean_high": "float64",
    "robust_accuracy": "float64",
    "robust_low": "float64",
    "robust_high": "float64",
}
"""Columns of the classes' table in order."""

_COLUMNS = 20
"""Classes that the report shows in columns; of more, each row's weakest and strongest are named."""
_NAMED = 5

READING = (
    "Robust accuracy of each class under every attack of the suite, in percent, and clean accuracy in brackets; the worst "
    "class is bold. The gap is the best class minus the worst, in points; p is the chance of a gap as large if all classes "
    "were equally robust (labels shuffled 2,000 times). `classes.csv` has the 95 % interval of every figure."
)


def classes_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """One line a row and class, in the order of the rows and by label, with the columns and types of `CLASS_DTYPES`.

    Accuracies are shares in 0..1 of the class's `n` samples, with 95 % Clopper-Pearson intervals.
    """
    return typed_frame([_line(row, one) for row in rows for one in per_class(row.worst_case)], CLASS_DTYPES)


def read_classes(path: Path) -> pd.DataFrame:
    """`classes.csv` with the types that it was written with."""
    return read_frame(path, CLASS_DTYPES)


def classes_section(rows: Sequence[Row]) -> str:
    """A table of rows × classes for each threat model, data and suite; empty where no row has two classes."""
    sections: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if class_gap(per_class(row.worst_case)) is not None:
            sections.setdefault((row.threat, row.data, row.suite), []).append(row)
    if not sections:
        return ""
    parts = ["## Classes", READING]
    for (threat, data, suite), members in sections.items():
        parts += [f"{safe(threat)}, data {safe(data)}, suite {safe(suite)}:", _table(members)]
    return "\n\n".join(parts)


def gap_text(row: Row) -> str:
    """`, 45 points below class 0`: how far the worst class is from the best; empty where there is one class only."""
    gap = class_gap(per_class(row.worst_case))
    return f", {100 * gap.difference:.0f} points below class {gap.best.label}" if gap else ""


def _line(row: Row, one: ClassFigures) -> dict[str, Any]:
    clean_low, clean_high = one.clean.interval
    robust_low, robust_high = one.robust.interval
    return {name: getattr(row, name) for name in ("threat", "data", "suite", "model", "defense", "status")} | {
        "label": one.label,
        "n": one.robust.n,
        "clean_accuracy": one.clean.estimate,
        "clean_low": clean_low,
        "clean_high": clean_high,
        "robust_accuracy": one.robust.estimate,
        "robust_low": robust_low,
        "robust_high": robust_high,
    }


def _table(rows: Sequence[Row]) -> str:
    figures = [per_class(row.worst_case) for row in rows]
    labels = sorted({one.label for classes in figures for one in classes})
    wide = len(labels) <= _COLUMNS
    classes_header = [str(label) for label in labels] if wide else ["weakest classes", "strongest classes"]
    header = ["model", "defense", *classes_header, "gap", "n a class"]
    names = 2 if wide else 4
    rule = [":--" if column < names else "--:" for column in range(len(header))]
    lines = [_entries(row, classes, labels if wide else None) for row, classes in zip(rows, figures, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *lines])


def _entries(row: Row, classes: Sequence[ClassFigures], labels: Sequence[int] | None) -> list[str]:
    gap = class_gap(classes)
    assert gap is not None, "only rows with two classes are shown"
    sizes = [one.robust.n for one in classes]
    if labels is None:
        order = sorted(classes, key=lambda one: one.robust.estimate)
        shown = [
            ", ".join(f"{one.label}: {_figure(one)}" for one in named)
            for named in (order[:_NAMED], order[::-1][:_NAMED])
        ]
    else:
        found = {one.label: _figure(one) for one in classes}
        found[gap.worst.label] = f"**{found[gap.worst.label]}**"
        shown = [found.get(label, NOTHING) for label in labels]
    chance = "p < 0.001" if gap.p_value < 0.001 else f"p = {gap.p_value:.3f}"
    n = str(sizes[0]) if min(sizes) == max(sizes) else f"{min(sizes)}–{max(sizes)}"
    return [safe(row.model), safe(row.defense), *shown, f"{100 * gap.difference:.0f}, {chance}", n]


def _figure(one: ClassFigures) -> str:
    return f"{100 * one.robust.estimate:.0f} ({100 * one.clean.estimate:.0f})"
