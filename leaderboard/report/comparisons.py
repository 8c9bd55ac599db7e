"""Which rows of a table are ranked against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gauntlet.leaderboard.report import formatting
from gauntlet.leaderboard.rows.conditions import Conditions, differences
from gauntlet.leaderboard.rows.row import LeaderboardRow

_MOST = 6
"""Number of comparisons, and of attacks of each, that are named."""
_ACCESS: Final = {
    "white-box": "models that can be seen inside",
    "scores": "black boxes",
    "labels": "black boxes that give classes only",
}


def separate(rows: Sequence[LeaderboardRow]) -> bool:
    """Whether the ranks of a table come from several comparisons."""
    return len({row.comparison for row in rows if row.rank is not None}) > 1


def rank(row: LeaderboardRow, *, named: bool) -> str:
    """The rank as text; `named`: after the name of its comparison, as `B 1–3`."""
    text = formatting.rank(row)
    return f"{row.comparison} {text}" if named and row.rank is not None else text


def describe_comparisons(rows: Sequence[LeaderboardRow]) -> str:
    """A sentence on the comparisons of a table, each with what sets it apart; empty if there is a single one."""
    if not separate(rows):
        return ""
    members = {row.comparison: row for row in rows if row.rank is not None}
    facts = {name: _facts(row.conditions) for name, row in members.items()}
    differing = [place for place, values in enumerate(zip(*facts.values(), strict=True)) if len(set(values)) > 1]
    parts = []
    for name, row in members.items():
        apart = [facts[name][place] for place in differing]
        twins = [other for other in members if facts[other] == facts[name]]
        if twins[0] != name:
            apart += differences(members[twins[0]].conditions, row.conditions)
        parts.append(f"{name} ({row.compared} row{'' if row.compared == 1 else 's'}): {', '.join(apart)}")
    more = f"; and {len(parts) - _MOST} more" if len(parts) > _MOST else ""
    return (
        "Rows are ranked only against rows that faced the same attacks on the same samples, in "
        f"{len(parts)} comparisons. {'; '.join(parts[:_MOST])}{more}."
    )


def _facts(conditions: Conditions) -> tuple[str, ...]:
    """What may set a comparison apart."""
    labels = [label for label, _ in conditions.attacks]
    ids = conditions.ids
    return (
        _ACCESS[conditions.access],
        f"attacked by {formatting.some(labels, _MOST)}",
        f"seed {' '.join(map(str, conditions.seeds))}",
        f"{len(ids)} samples" + (f" from {ids[0]} to {ids[-1]}" if ids else ""),
    )
