"""The table of `cells.csv`: one line per cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from gauntlet.leaderboard.report.cell_text import attack_settings
from gauntlet.leaderboard.report.csv_writer import (
    BOOLEAN,
    COUNT,
    NUMBER,
    TEXT,
    accuracy_columns,
    read_frame,
    typed_frame,
)
from gauntlet.leaderboard.results.spent import PARTS, Spent
from gauntlet.leaderboard.results.summary import AnyResult, CellSummary, summaries
from gauntlet.leaderboard.rows.corruptions import accuracy, by_severity

CELL_DTYPES: Final[Mapping[str, str]] = {
    "model": TEXT,
    "defense": TEXT,
    "attack": TEXT,
    "attack_spec": TEXT,
    "attack_kind": TEXT,
    "norm": TEXT,
    "eps": NUMBER,
    "threat": TEXT,
    "suite": TEXT,
    "data": TEXT,
    "seed": COUNT,
    "precision": TEXT,
    "minimum_norm": BOOLEAN,
    "randomised": BOOLEAN,
    "status": TEXT,
    "error": TEXT,
    "n": COUNT,
    "expected": COUNT,
    "clean_accuracy": NUMBER,
    "robust_accuracy": NUMBER,
    "robust_low": NUMBER,
    "robust_high": NUMBER,
    "corruption_accuracy": NUMBER,
    "corruption_low": NUMBER,
    "corruption_high": NUMBER,
    **{f"severity_{severity}": NUMBER for severity in range(1, 6)},
    "seconds": NUMBER,
    **{f"{part}_seconds": NUMBER for part in PARTS if part != "attack"},
    "stage_seconds": TEXT,
    "forwards_per_sample": NUMBER,
    "backwards_per_sample": NUMBER,
    "peak_memory_mib": NUMBER,
    "candidates_rejected": COUNT,
    "disagreements": COUNT,
    "median_distance": NUMBER,
    "certified": COUNT,
    "techniques": TEXT,
    "cached": BOOLEAN,
    "flags": TEXT,
    "device": TEXT,
}
"""Columns of `cells.csv`, in order."""


def cells_frame(results: Sequence[AnyResult]) -> pd.DataFrame:
    """One line per cell, in the order given, with the columns and types of `CELL_DTYPES`.

    Accuracies are shares in 0..1 of the `n` samples that the cell covered so far, NaN where there are none. Passes are
    means over these samples, `median_distance` is over the samples that the attack broke, and `error` is the exception's
    class and message. `attack_spec` names cascades by their digest; the run's records have their settings in full.
    Corruptions have `corruption_accuracy` (the mean over the severities, and the accuracy at each) in place of
    `robust_accuracy`. `seconds` are the attack's, `load_seconds` and so on those of the other parts of the runs that computed
    the cell (`gauntlet.leaderboard.results.spent`), `stage_seconds` those of a cascade's stages, as `LABEL=SECONDS`.
    """
    return typed_frame([_line(result) for result in summaries(results)], CELL_DTYPES)


def read_cells(path: Path) -> pd.DataFrame:
    """`cells.csv` with the types of `CELL_DTYPES`."""
    return read_frame(path, CELL_DTYPES)


def _line(result: CellSummary) -> dict[str, Any]:
    n, error, certified = len(result), result.error, result.proven
    return {
        **vars(result.cell),
        "attack_spec": attack_settings(result.cell.attack_spec),
        "precision": result.precision,
        "status": result.status,
        "error": f"{error.kind}: {error.message}" if error else "",
        "n": n,
        "expected": result.expected,
        "clean_accuracy": result.clean_accuracy.estimate,
        **(_corrupted(result) if result.cell.corrupts else _robust(result)),
        **vars(result.costs),
        **_spent(result.spent),
        "median_distance": result.median_distance,
        "certified": pd.NA if certified is None else certified,
        "techniques": " ".join(sorted(result.techniques)),
        "cached": result.cached,
        "flags": "; ".join(dict.fromkeys(flag.name for flag in result.flags)),
        "device": result.device,
    }


def _spent(spent: Spent | None) -> dict[str, Any]:
    if spent is None:
        return {"stage_seconds": ""}
    parts = {f"{part}_seconds": spent.seconds.get(part, 0.0) for part in PARTS}
    return {**parts, "stage_seconds": " ".join(f"{label}={one:.4g}" for label, one in spent.stages.items() if label)}


def _robust(result: CellSummary) -> dict[str, float]:
    robust = result.robust_accuracy
    return accuracy_columns("robust", robust.estimate, robust.interval)


def _corrupted(result: CellSummary) -> dict[str, float]:
    mean = accuracy(result)
    severities = {f"severity_{severity}": share.estimate for severity, share in by_severity(result).items()}
    return accuracy_columns("corruption", mean.estimate, mean.interval) | severities
