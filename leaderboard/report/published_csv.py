"""The table of `published.csv`: one line per published figure, beside the measured one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from gauntlet.leaderboard.report.csv_writer import BOOLEAN, COUNT, NUMBER, TEXT, read_frame, typed_frame
from gauntlet.leaderboard.rows.references import Reference
from gauntlet.leaderboard.rows.row import LeaderboardRow

PUBLISHED_DTYPES: Final[Mapping[str, str]] = {
    "model": TEXT,
    "figure": TEXT,
    "threat": TEXT,
    "published": NUMBER,
    "published_as": TEXT,
    "published_data": TEXT,
    "published_attack": TEXT,
    "published_n": COUNT,
    "source": TEXT,
    "note": TEXT,
    "data": TEXT,
    "suite": TEXT,
    "measured": NUMBER,
    "low": NUMBER,
    "high": NUMBER,
    "n": COUNT,
    "difference": NUMBER,
    "covered": BOOLEAN,
}
"""Columns of `published.csv`, in order. `figure` is `clean`, `robust` or `corruptions`; accuracies are shares in 0..1."""


def published_frame(references: Sequence[Reference]) -> pd.DataFrame:
    """One line per reference, in the order given, with the columns and types of `PUBLISHED_DTYPES`."""
    return typed_frame([_line(reference) for reference in references], PUBLISHED_DTYPES)


def read_published(path: Path) -> pd.DataFrame:
    """`published.csv` with the types of `PUBLISHED_DTYPES`."""
    return read_frame(path, PUBLISHED_DTYPES)


def with_published(
    frame: pd.DataFrame, rows: Sequence[LeaderboardRow], references: Sequence[Reference]
) -> pd.DataFrame:
    """Fill the `published_…` columns of the leaderboard's table of `rows`.

    `published_difference` is measured minus published, and `published_covered` is `yes` or `no`. If several robust accuracies
    are published for a row, the lowest is taken.
    """
    robust = [reference for reference in references if reference.figure == "robust"]
    lowest: dict[int, Reference] = {}
    for reference in sorted(robust, key=lambda reference: reference.stated, reverse=True):
        lowest[next(number for number, row in enumerate(rows) if row is reference.row)] = reference
    for number, reference in lowest.items():
        frame.loc[number, ["published_robust", "published_difference"]] = reference.stated, reference.difference
        frame.loc[number, "published_covered"] = "yes" if reference.covered else "no"
    return frame


def _line(reference: Reference) -> dict[str, Any]:
    row, published, measured = reference.row, reference.published, reference.measured
    robust = reference.figure == "robust"
    low, high = measured.interval
    return {
        "model": row.model,
        "figure": reference.figure,
        "threat": row.threat if robust else "",
        "published": reference.stated,
        "published_as": published.model,
        "published_data": published.data,
        "published_attack": reference.attack,
        "published_n": published.n or pd.NA,
        "source": published.source,
        "note": published.note,
        "data": row.data,
        "suite": row.suite if robust else "",
        "measured": measured.estimate,
        "low": low,
        "high": high,
        "n": measured.n,
        "difference": reference.difference,
        "covered": reference.covered,
    }
