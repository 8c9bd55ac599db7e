"""Rows and cells as pandas tables with stable columns and types, and the same tables read back from CSV."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CORRUPTION, CellResult
from gauntlet.leaderboard.rows.corruptions import accuracy, by_severity
from gauntlet.leaderboard.rows.per_class import class_gap, per_class
from gauntlet.leaderboard.rows.row import Row
from gauntlet.leaderboard.stats.proportions import Proportion

_TEXT, _COUNT, _NUMBER, _BIT = "string", "Int64", "float64", "bool"
_SEVERITIES = range(1, 6)

LEADERBOARD_DTYPES: Final[Mapping[str, str]] = {
    "threat": _TEXT,
    "norm": _TEXT,
    "eps": _NUMBER,
    "data": _TEXT,
    "suite": _TEXT,
    "seeds": _TEXT,
    "rank": _COUNT,
    "rank_low": _COUNT,
    "rank_high": _COUNT,
    "model": _TEXT,
    "defense": _TEXT,
    "status": _TEXT,
    "n": _COUNT,
    "robust_accuracy": _NUMBER,
    "robust_low": _NUMBER,
    "robust_high": _NUMBER,
    "naive_accuracy": _NUMBER,
    "naive_low": _NUMBER,
    "naive_high": _NUMBER,
    "certified_accuracy": _NUMBER,
    "open": _COUNT,
    "ways": _TEXT,
    "clean_n": _COUNT,
    "clean_accuracy": _NUMBER,
    "clean_low": _NUMBER,
    "clean_high": _NUMBER,
    "published_robust": _NUMBER,
    "published_difference": _NUMBER,
    "published_covered": _TEXT,
    "corruption_accuracy": _NUMBER,
    "corruption_low": _NUMBER,
    "corruption_high": _NUMBER,
    "corruption_n": _COUNT,
    "corruptions": _COUNT,
    "mce": _NUMBER,
    "mce_alexnet": _NUMBER,
    "corruption_seconds": _NUMBER,
    "worst_attack": _TEXT,
    "worst_class": _COUNT,
    "worst_class_n": _COUNT,
    "worst_class_robust_accuracy": _NUMBER,
    "best_class": _COUNT,
    "class_gap": _NUMBER,
    "class_gap_p": _NUMBER,
    "class_gap_to_mean": _NUMBER,
    "seconds": _NUMBER,
    "forwards_per_sample": _NUMBER,
    "backwards_per_sample": _NUMBER,
    "peak_memory_mib": _NUMBER,
    "flags": _TEXT,
    "unranked": _TEXT,
}
"""Columns of the leaderboard in order; a float64 column `robust[<attack label>]` per attack follows them."""

CELL_DTYPES: Final[Mapping[str, str]] = {
    "model": _TEXT,
    "defense": _TEXT,
    "attack": _TEXT,
    "attack_spec": _TEXT,
    "attack_kind": _TEXT,
    "norm": _TEXT,
    "eps": _NUMBER,
    "threat": _TEXT,
    "suite": _TEXT,
    "data": _TEXT,
    "seed": _COUNT,
    "precision": _TEXT,
    "minimum_norm": _BIT,
    "randomised": _BIT,
    "status": _TEXT,
    "error": _TEXT,
    "n": _COUNT,
    "expected": _COUNT,
    "clean_accuracy": _NUMBER,
    "robust_accuracy": _NUMBER,
    "robust_low": _NUMBER,
    "robust_high": _NUMBER,
    "corruption_accuracy": _NUMBER,
    "corruption_low": _NUMBER,
    "corruption_high": _NUMBER,
    **{f"severity_{one}": _NUMBER for one in _SEVERITIES},
    "seconds": _NUMBER,
    "forwards_per_sample": _NUMBER,
    "backwards_per_sample": _NUMBER,
    "peak_memory_mib": _NUMBER,
    "candidates_rejected": _COUNT,
    "disagreements": _COUNT,
    "median_distance": _NUMBER,
    "certified": _COUNT,
    "ways": _TEXT,
    "cached": _BIT,
    "flags": _TEXT,
    "device": _TEXT,
}
"""Columns of the cells' table in order."""


def attack_column(label: str) -> str:
    """Name of the column with the robust accuracy under the attack of that label."""
    return _storable(f"robust[{label}]")


def cells_frame(results: Sequence[CellResult]) -> pd.DataFrame:
    """One line a cell, in the order given, with the columns and types of `CELL_DTYPES`.

    Accuracies are shares in 0..1 of the `n` samples that the cell covered so far, NaN where there are none; passes are
    means over them; `median_distance` is over the samples that the attack broke; `error` is the exception's class and
    message. Corruptions have `corruption_accuracy` (the mean over their severities, and that at each) in place of a robust one.
    """
    return typed_frame([_cell(result) for result in results], CELL_DTYPES)


def leaderboard_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """One line a row, in the order given, with the columns and types of `LEADERBOARD_DTYPES` and one per attack.

    Accuracies are shares in 0..1. `robust[<label>]` is NaN where the attack failed, has not finished or was not asked
    for. `robust_accuracy` of a row whose `status` is not `ok` is over the samples that all its attacks have covered.
    `corruption_accuracy`, over `corruptions` many of them, and `mce` = 1 − it, are NaN where one failed or has not finished.
    """
    labels = dict.fromkeys(attack_column(label) for row in rows for label in row.attacks)
    return typed_frame([_line(row) for row in rows], {**LEADERBOARD_DTYPES, **dict.fromkeys(labels, _NUMBER)})


def read_leaderboard(path: Path) -> pd.DataFrame:
    """`leaderboard.csv` with the types that it was written with."""
    return read_frame(path, LEADERBOARD_DTYPES)


def read_cells(path: Path) -> pd.DataFrame:
    """`cells.csv` with the types that it was written with."""
    return read_frame(path, CELL_DTYPES)


def typed_frame(lines: Sequence[Mapping[str, Any]], dtypes: Mapping[str, str]) -> pd.DataFrame:
    """A table with exactly these columns and types; a number that a line lacks is empty."""
    columns = {
        name: pd.Series([_value(line, name, dtype) for line in lines], dtype=dtype) for name, dtype in dtypes.items()
    }
    return pd.DataFrame(columns)


def _value(line: Mapping[str, Any], name: str, dtype: str) -> Any:
    if dtype == _TEXT:
        return _storable(line[name])
    return line.get(name, pd.NA if dtype == _COUNT else float("nan"))


def _storable(text: str) -> str:
    """Without lone surrogates: a file name that is no UTF-8 has them, and no table of text can hold them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _cell(result: CellResult) -> dict[str, Any]:
    n, error = cells.covered(result), result.error
    return {
        **dataclasses.asdict(result.cell),
        "precision": cells.precision(result),
        "status": cells.status(result),
        "error": f"{error.kind}: {error.message}" if error else "",
        "n": n,
        "expected": result.expected,
        "clean_accuracy": cells.clean_accuracy(result).estimate,
        **(_corrupted(result) if result.cell.attack_kind == CORRUPTION else _robust(result)),
        **dataclasses.asdict(cells.costs(result)),
        "median_distance": cells.median_distance(result),
        "certified": pd.NA if (proven := cells.certified(result)) is None else proven,
        "ways": " ".join(sorted(cells.ways(result))),
        "cached": bool(result.blocks) and all(block.cached for block in result.blocks),
        "flags": "; ".join(dict.fromkeys(flag.name for flag in cells.flags(result))),
        "device": cells.device(result),
    }


def _robust(result: CellResult) -> dict[str, float]:
    robust = cells.robust_accuracy(result)
    return _ends("robust", robust.estimate, robust.interval)


def _corrupted(result: CellResult) -> dict[str, float]:
    mean = accuracy(result)
    severities = {f"severity_{one}": share.estimate for one, share in by_severity(result).items()}
    return _ends("corruption", mean.estimate, mean.interval) | severities


def _ends(name: str, estimate: float, interval: tuple[float, float]) -> dict[str, float]:
    low, high = interval
    return {f"{name}_accuracy": estimate, f"{name}_low": low, f"{name}_high": high}


def _corruption(row: Row) -> dict[str, Any]:
    found = row.corruption
    if found is None:
        return {}
    return {
        **_ends("corruption", found.mean.estimate, found.mean.interval),
        "corruption_n": found.mean.n,
        "corruptions": len(found.by_label),
        "mce": found.error,
        "mce_alexnet": float("nan") if found.alexnet is None else found.alexnet,
        "corruption_seconds": found.seconds,
    }


def _line(row: Row) -> dict[str, Any]:
    low, high = row.rank_interval or (pd.NA, pd.NA)
    plain = [field.name for field in dataclasses.fields(row) if field.name in LEADERBOARD_DTYPES]
    robust_low, robust_high = row.robust.interval
    clean_low, clean_high = row.clean.interval
    gap = class_gap(per_class(row.worst_case))
    line = {name: getattr(row, name) for name in plain} | {
        "seeds": " ".join(map(str, row.seeds)),
        "rank": pd.NA if row.rank is None else row.rank,
        "rank_low": low,
        "rank_high": high,
        "n": row.robust.n,
        "robust_accuracy": row.robust.estimate,
        "robust_low": robust_low,
        "robust_high": robust_high,
        "naive_accuracy": row.naive.estimate if row.naive else float("nan"),
        "naive_low": row.naive.interval[0] if row.naive else float("nan"),
        "naive_high": row.naive.interval[1] if row.naive else float("nan"),
        "certified_accuracy": row.bracket.certified.estimate if row.bracket else float("nan"),
        "open": row.bracket.open if row.bracket else pd.NA,
        "ways": " ".join(sorted(row.ways)),
        "clean_n": row.clean.n,
        "clean_accuracy": row.clean.estimate,
        "clean_low": clean_low,
        "clean_high": clean_high,
        "worst_attack": row.worst_attack or "",
        "worst_class": row.worst_class.label if row.worst_class else pd.NA,
        "worst_class_n": row.worst_class.robust.n if row.worst_class else pd.NA,
        "worst_class_robust_accuracy": row.worst_class.robust.estimate if row.worst_class else float("nan"),
        "best_class": gap.best.label if gap else pd.NA,
        "class_gap": gap.difference if gap else float("nan"),
        "class_gap_p": gap.p_value if gap else float("nan"),
        "class_gap_to_mean": gap.below_mean if gap else float("nan"),
        "flags": "; ".join(dict.fromkeys(flag.name for flag in row.flags)),
        "unranked": " ".join(row.unranked),
    }
    # Filled where published figures are known: see `references`.
    line |= _corruption(row) | {"published_covered": ""}
    return line | {
        attack_column(label): entry.estimate for label, entry in row.attacks.items() if isinstance(entry, Proportion)
    }


def read_frame(path: Path, dtypes: Mapping[str, str]) -> pd.DataFrame:
    """A CSV file with those types; a column that is not named holds numbers."""
    # As text first: a model may be called NA or null, and pandas 2 rounds decimals unless told otherwise.
    texts = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    lines = texts.to_dict("records")
    types = {str(name): dtypes.get(str(name), _NUMBER) for name in texts.columns}
    columns = {
        name: pd.Series([_parsed(line[name], dtype) for line in lines], dtype=dtype) for name, dtype in types.items()
    }
    return pd.DataFrame(columns)


def _parsed(text: str, dtype: str) -> Any:
    if dtype == _TEXT:
        return text
    if dtype == _BIT:
        return text == "True"
    if not text:
        return pd.NA if dtype == _COUNT else float("nan")
    return int(text) if dtype == _COUNT else float(text)
