"""A comparison as data: a table with a line a pair, and plain values for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import pandas as pd

from gauntlet.leaderboard.compare.comparison import Comparison, Difference, Group, Line
from gauntlet.leaderboard.rows.frames import typed_frame

SCHEMA: Final = 1
"""Of the JSON; it grows where a field changes its meaning or goes."""

_SIDES: Final = {
    "": "string",
    "run": "string",
    "model": "string",
    "defense": "string",
    "rank_low": "Int64",
    "rank_high": "Int64",
    "robust_accuracy": "float64",
}
PAIR_DTYPES: Final[Mapping[str, str]] = (
    {"group": "Int64", "threat": "string", "data": "string", "suite": "string", "seeds": "string", "n": "Int64"}
    | {f"{side}_{name}".rstrip("_"): kind for side in ("first", "second") for name, kind in _SIDES.items()}
    | {"difference": "float64", "low": "float64", "high": "float64", "only_first": "Int64", "only_second": "Int64"}
    | {"p_holm": "float64"}
)
"""Columns of the table of pairs, in order. Accuracies and differences are shares, `difference` is the first minus the second."""


def pairs_frame(comparison: Comparison) -> pd.DataFrame:
    """One line for each pair of rows that can be compared, with the columns and types of `PAIR_DTYPES`.

    `p_holm` is empty where either row has no rank.
    """
    lines = [
        _pair(number, group, one) for number, group in enumerate(comparison.groups, 1) for one in group.differences
    ]
    return typed_frame(lines, PAIR_DTYPES)


def _pair(number: int, group: Group, one: Difference) -> dict[str, Any]:
    low, high = one.interval
    return {
        "group": number,
        "threat": group.threat,
        "data": group.data,
        "suite": group.suite,
        "seeds": " ".join(map(str, group.seeds)),
        "n": group.n,
        **_side("first", group.lines[one.first]),
        **_side("second", group.lines[one.second]),
        "difference": one.estimate,
        "low": low,
        "high": high,
        "only_first": one.only_first,
        "only_second": one.only_second,
        "p_holm": float("nan") if one.p_value is None else one.p_value,
    }


def _side(side: str, line: Line) -> dict[str, Any]:
    return {
        side: line.label,
        f"{side}_run": line.source,
        f"{side}_model": line.row.model,
        f"{side}_defense": line.row.defense,
        f"{side}_rank_low": line.rank.place if line.rank else pd.NA,
        f"{side}_rank_high": line.rank.worst if line.rank else pd.NA,
        f"{side}_robust_accuracy": line.row.robust.estimate,
    }


def comparison_json(comparison: Comparison, runs: Sequence[Mapping[str, str]] = ()) -> dict[str, Any]:
    """All of it as plain values that JSON has: shares in 0..1, `first` and `second` by place in the group's rows, from 0.

    `p_holm` is null where either row has no rank.
    """
    return {
        "schema": SCHEMA,
        "runs": [dict(run) for run in runs],
        "groups": [_group(group) for group in comparison.groups],
        "missing": [{"label": label, "reasons": list(why)} for label, why in comparison.missing],
    }


def _group(group: Group) -> dict[str, Any]:
    differences = [
        {
            "first": one.first,
            "second": one.second,
            "difference": one.estimate,
            "interval": list(one.interval),
            "only_first": one.only_first,
            "only_second": one.only_second,
            "p_holm": one.p_value,
        }
        for one in group.differences
    ]
    plain = {name: getattr(group, name) for name in ("threat", "data", "suite", "n", "apart")}
    return plain | {"seeds": list(group.seeds), "rows": [_row(line) for line in group.lines], "pairs": differences}


def _row(line: Line) -> dict[str, Any]:
    broken_by = [asdict(one) | {"stages": dict(one.stages)} for one in line.breakers]
    return {
        "label": line.label,
        "run": line.source,
        "model": line.row.model,
        "defense": line.row.defense,
        "rank": [line.rank.place, line.rank.worst] if line.rank else None,
        "unranked": list(line.row.unranked),
        "robust_accuracy": line.row.robust.estimate,
        "interval": list(line.row.robust.interval),
        "clean_accuracy": line.row.clean.estimate,
        "wrong_when_clean": line.wrong_clean,
        "broken": line.broken,
        "broken_by": broken_by,
    }
