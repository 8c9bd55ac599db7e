"""The table of `leaderboard.csv`: one line per row of the leaderboard."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from gauntlet.leaderboard.report.csv_writer import (
    COUNT,
    NUMBER,
    TEXT,
    accuracy_columns,
    read_frame,
    storable,
    typed_frame,
)
from gauntlet.leaderboard.rows.per_class import class_gap, per_class
from gauntlet.leaderboard.rows.row import LeaderboardRow
from gauntlet.leaderboard.stats.proportions import Proportion

LEADERBOARD_DTYPES: Final[Mapping[str, str]] = {
    "threat": TEXT,
    "norm": TEXT,
    "eps": NUMBER,
    "data": TEXT,
    "suite": TEXT,
    "seeds": TEXT,
    "rank": COUNT,
    "rank_low": COUNT,
    "rank_high": COUNT,
    "comparison": TEXT,
    "compared": COUNT,
    "model": TEXT,
    "defense": TEXT,
    "status": TEXT,
    "n": COUNT,
    "robust_accuracy": NUMBER,
    "robust_low": NUMBER,
    "robust_high": NUMBER,
    "naive_accuracy": NUMBER,
    "naive_low": NUMBER,
    "naive_high": NUMBER,
    "certified_accuracy": NUMBER,
    "open": COUNT,
    "techniques": TEXT,
    "clean_n": COUNT,
    "clean_accuracy": NUMBER,
    "clean_low": NUMBER,
    "clean_high": NUMBER,
    "published_robust": NUMBER,
    "published_difference": NUMBER,
    "published_covered": TEXT,
    "corruption_accuracy": NUMBER,
    "corruption_low": NUMBER,
    "corruption_high": NUMBER,
    "corruption_n": COUNT,
    "corruptions": COUNT,
    "mce": NUMBER,
    "mce_alexnet": NUMBER,
    "corruption_seconds": NUMBER,
    "worst_attack": TEXT,
    "worst_class": COUNT,
    "worst_class_n": COUNT,
    "worst_class_robust_accuracy": NUMBER,
    "best_class": COUNT,
    "class_gap": NUMBER,
    "class_gap_p": NUMBER,
    "class_gap_to_mean": NUMBER,
    "seconds": NUMBER,
    "forwards_per_sample": NUMBER,
    "backwards_per_sample": NUMBER,
    "peak_memory_mib": NUMBER,
    "flags": TEXT,
    "unranked": TEXT,
}
"""Columns of `leaderboard.csv`, in order; a float64 column `robust[<attack label>]` for each attack follows them."""


def attack_column(label: str) -> str:
    """Name of the column with the robust accuracy under the attack with that label."""
    return storable(f"robust[{label}]")


def leaderboard_frame(rows: Sequence[LeaderboardRow]) -> pd.DataFrame:
    """One line per row, in the order given, with the columns and types of `LEADERBOARD_DTYPES` and a column per attack.

    Accuracies are shares in 0..1. `robust[<label>]` is NaN where the attack failed, has not finished or was not run. In a row
    whose `status` is not `ok`, `robust_accuracy` is over the samples that all attacks have covered. `corruption_accuracy`, the
    mean over `corruptions` corruptions, and `mce` = 1 - `corruption_accuracy` are NaN where a corruption failed or has not
    finished. Ranks hold among the `compared` rows of the same `comparison`.
    """
    labels = dict.fromkeys(attack_column(label) for row in rows for label in row.attacks)
    return typed_frame([_line(row) for row in rows], {**LEADERBOARD_DTYPES, **dict.fromkeys(labels, NUMBER)})


def read_leaderboard(path: Path) -> pd.DataFrame:
    """`leaderboard.csv` with the types of `LEADERBOARD_DTYPES`."""
    return read_frame(path, LEADERBOARD_DTYPES)


def _line(row: LeaderboardRow) -> dict[str, Any]:
    low, high = row.rank_interval or (pd.NA, pd.NA)
    same = [field.name for field in dataclasses.fields(row) if field.name in LEADERBOARD_DTYPES]
    line: dict[str, Any] = {name: getattr(row, name) for name in same} | {
        "seeds": " ".join(map(str, row.seeds)),
        "rank": pd.NA if row.rank is None else row.rank,
        "rank_low": low,
        "rank_high": high,
        "n": row.robust.n,
        "techniques": " ".join(sorted(row.techniques)),
        "clean_n": row.clean.n,
        "worst_attack": row.worst_attack or "",
        "flags": "; ".join(dict.fromkeys(flag.name for flag in row.flags)),
        "unranked": " ".join(row.unranked),
        # Filled in by `published_csv.with_published`, where published figures are known.
        "published_covered": "",
    }
    line |= accuracy_columns("robust", row.robust.estimate, row.robust.interval)
    line |= accuracy_columns("clean", row.clean.estimate, row.clean.interval)
    if row.naive is not None:
        line |= accuracy_columns("naive", row.naive.estimate, row.naive.interval)
    if row.bracket is not None:
        line |= {"certified_accuracy": row.bracket.certified.estimate, "open": row.bracket.open}
    return line | _class_columns(row) | _corruption_columns(row) | _attack_columns(row)


def _class_columns(row: LeaderboardRow) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    if row.worst_class is not None:
        columns |= {
            "worst_class": row.worst_class.label,
            "worst_class_n": row.worst_class.robust.n,
            "worst_class_robust_accuracy": row.worst_class.robust.estimate,
        }
    gap = class_gap(per_class(row.worst_case))
    if gap is not None:
        columns |= {
            "best_class": gap.best.label,
            "class_gap": gap.difference,
            "class_gap_p": gap.p_value,
            "class_gap_to_mean": gap.below_mean,
        }
    return columns


def _corruption_columns(row: LeaderboardRow) -> dict[str, Any]:
    corruption = row.corruption
    if corruption is None:
        return {}
    return {
        **accuracy_columns("corruption", corruption.mean.estimate, corruption.mean.interval),
        "corruption_n": corruption.mean.n,
        "corruptions": len(corruption.by_label),
        "mce": corruption.error,
        "mce_alexnet": float("nan") if corruption.alexnet is None else corruption.alexnet,
        "corruption_seconds": corruption.seconds,
    }


def _attack_columns(row: LeaderboardRow) -> dict[str, float]:
    finished = {label: entry for label, entry in row.attacks.items() if isinstance(entry, Proportion)}
    return {attack_column(label): accuracy.estimate for label, accuracy in finished.items()}
