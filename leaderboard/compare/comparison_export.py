"""A comparison as data: a table with a line per pair of rows, and plain values for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import pandas as pd

from gauntlet.leaderboard.compare.comparison import ComparedRow, Comparison, ComparisonGroup, PairedDifference
from gauntlet.leaderboard.report.csv_writer import COUNT, NUMBER, TEXT, typed_frame

SCHEMA: Final = 1
"""Version of the JSON; raised when the meaning of a field changes or a field is removed."""

_SIDES: Final = {
    "": TEXT,
    "run": TEXT,
    "model": TEXT,
    "defense": TEXT,
    "rank_low": COUNT,
    "rank_high": COUNT,
    "robust_accuracy": NUMBER,
}
PAIR_DTYPES: Final[Mapping[str, str]] = (
    {"group": COUNT, "threat": TEXT, "data": TEXT, "suite": TEXT, "seeds": TEXT, "n": COUNT}
    | {f"{side}_{name}".rstrip("_"): kind for side in ("first", "second") for name, kind in _SIDES.items()}
    | {"difference": NUMBER, "low": NUMBER, "high": NUMBER, "only_first": COUNT, "only_second": COUNT}
    | {"p_holm": NUMBER}
)
"""Columns of the table of pairs, in order. Accuracies and differences are shares; `difference` is the first minus the second."""


def pairs_frame(comparison: Comparison) -> pd.DataFrame:
    """One line per pair of comparable rows, with the columns and types of `PAIR_DTYPES`.

    `p_holm` is empty if either row has no rank.
    """
    lines = [
        _pair(number, group, difference)
        for number, group in enumerate(comparison.groups, 1)
        for difference in group.differences
    ]
    return typed_frame(lines, PAIR_DTYPES)


def _pair(number: int, group: ComparisonGroup, difference: PairedDifference) -> dict[str, Any]:
    low, high = difference.interval
    return {
        "group": number,
        "threat": group.threat,
        "data": group.data,
        "suite": group.suite,
        "seeds": " ".join(map(str, group.seeds)),
        "n": group.n,
        **_side("first", group.rows[difference.first]),
        **_side("second", group.rows[difference.second]),
        "difference": difference.estimate,
        "low": low,
        "high": high,
        "only_first": difference.only_first,
        "only_second": difference.only_second,
        "p_holm": float("nan") if difference.p_value is None else difference.p_value,
    }


def _side(side: str, compared: ComparedRow) -> dict[str, Any]:
    return {
        side: compared.label,
        f"{side}_run": compared.run,
        f"{side}_model": compared.row.model,
        f"{side}_defense": compared.row.defense,
        f"{side}_rank_low": compared.rank.place if compared.rank else pd.NA,
        f"{side}_rank_high": compared.rank.worst if compared.rank else pd.NA,
        f"{side}_robust_accuracy": compared.row.robust.estimate,
    }


def comparison_json(comparison: Comparison, runs: Sequence[Mapping[str, str]] = ()) -> dict[str, Any]:
    """The whole comparison as plain JSON values: shares in 0..1, `first` and `second` as indices into the group's rows.

    `p_holm` is null if either row has no rank.
    """
    return {
        "schema": SCHEMA,
        "runs": [dict(run) for run in runs],
        "groups": [_group(group) for group in comparison.groups],
        "missing": [{"label": label, "reasons": list(reasons)} for label, reasons in comparison.missing],
    }


def _group(group: ComparisonGroup) -> dict[str, Any]:
    pairs = [
        {
            "first": difference.first,
            "second": difference.second,
            "difference": difference.estimate,
            "interval": list(difference.interval),
            "only_first": difference.only_first,
            "only_second": difference.only_second,
            "p_holm": difference.p_value,
        }
        for difference in group.differences
    ]
    return {
        "threat": group.threat,
        "data": group.data,
        "suite": group.suite,
        "n": group.n,
        "apart": group.separation,
        "seeds": list(group.seeds),
        "rows": [_row(compared) for compared in group.rows],
        "pairs": pairs,
    }


def _row(compared: ComparedRow) -> dict[str, Any]:
    row = compared.row
    return {
        "label": compared.label,
        "run": compared.run,
        "model": row.model,
        "defense": row.defense,
        "rank": [compared.rank.place, compared.rank.worst] if compared.rank else None,
        "unranked": list(row.unranked),
        "robust_accuracy": row.robust.estimate,
        "interval": list(row.robust.interval),
        "clean_accuracy": row.clean.estimate,
        "wrong_when_clean": compared.wrong_clean,
        "broken": compared.broken,
        "broken_by": [asdict(attack) | {"stages": dict(attack.stages)} for attack in compared.broken_by],
    }
