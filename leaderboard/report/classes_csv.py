"""The table of `classes.csv`: one line per row of the leaderboard and class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from gauntlet.leaderboard.report.csv_writer import COUNT, NUMBER, TEXT, accuracy_columns, read_frame, typed_frame
from gauntlet.leaderboard.rows.per_class import ClassAccuracy, per_class
from gauntlet.leaderboard.rows.row import LeaderboardRow

_ROW_COLUMNS = ("threat", "data", "suite", "model", "defense", "status")
CLASS_DTYPES: Final[Mapping[str, str]] = dict.fromkeys(_ROW_COLUMNS, TEXT) | {
    "label": COUNT,
    "name": TEXT,
    "n": COUNT,
    "clean_accuracy": NUMBER,
    "clean_low": NUMBER,
    "clean_high": NUMBER,
    "robust_accuracy": NUMBER,
    "robust_low": NUMBER,
    "robust_high": NUMBER,
}
"""Columns of `classes.csv`, in order."""


def classes_frame(rows: Sequence[LeaderboardRow]) -> pd.DataFrame:
    """One line per row and class, in the order of the rows and by label, with the columns and types of `CLASS_DTYPES`.

    Accuracies are shares in 0..1 of the class's `n` samples, with 95 % Clopper-Pearson intervals.
    """
    lines = [_line(row, accuracy) for row in rows for accuracy in per_class(row.worst_case, row.class_names)]
    return typed_frame(lines, CLASS_DTYPES)


def read_classes(path: Path) -> pd.DataFrame:
    """`classes.csv` with the types of `CLASS_DTYPES`."""
    return read_frame(path, CLASS_DTYPES)


def _line(row: LeaderboardRow, accuracy: ClassAccuracy) -> dict[str, Any]:
    return {
        **{name: getattr(row, name) for name in _ROW_COLUMNS},
        "label": accuracy.label,
        "name": accuracy.name,
        "n": accuracy.robust.n,
        **accuracy_columns("clean", accuracy.clean.estimate, accuracy.clean.interval),
        **accuracy_columns("robust", accuracy.robust.estimate, accuracy.robust.interval),
    }
