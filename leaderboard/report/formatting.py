"""Figures of a row as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gauntlet.leaderboard.rows.row import LeaderboardRow
from gauntlet.leaderboard.stats.proportions import Proportion

NOTHING = "–"
"""Shown in place of a missing figure."""


def some(names: Sequence[str], most: int = 5) -> str:
    """`a, b and 3 more`: the names, of which `most` are given."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def target_meaning(threat: str) -> str:
    """A sentence on what robust means for a threat model with a target; empty for a threat model without one."""
    _, targeted, target = threat.partition(":target=")
    if not targeted:
        return ""
    classes = {"next": "the class after its label", "random": "the other class that was drawn for it"}
    goal = classes.get(target, f"class {target}")
    exception = "" if target in classes else " (which a sample of that class cannot be)"
    return f"Targeted: robust means classified correctly clean and not moved to {goal}{exception} by any attack."


def percent(share: Proportion) -> str:
    """`72.9`: percent with one decimal."""
    return f"{100 * share.estimate:.1f}" if share.n else NOTHING


def with_interval(share: Proportion) -> str:
    """`72.9 [69.7, 76.0]`: percent with the 95 % interval."""
    if not share.n:
        return NOTHING
    low, high = share.interval
    return f"{percent(share)} [{100 * low:.1f}, {100 * high:.1f}]"


def robust(row: LeaderboardRow) -> str:
    """`96.7 → 7.3 [5.6, 9.3]`: robust accuracy under the naive attack alone, if there is one, and in the worst case."""
    naive = f"{percent(row.naive)} → " if row.naive is not None else ""
    return naive + with_interval(row.robust)


def corrupted(row: LeaderboardRow) -> str:
    """`83.2 [82.0, 84.4]`: mean accuracy under corruptions; `error` if one failed, `–` if there is no figure."""
    corruption = row.corruption
    if corruption is None:
        return NOTHING
    if corruption.mean.n == 0:
        return "error" if "error" in corruption.by_label.values() else NOTHING
    low, high = corruption.mean.interval
    return f"{100 * corruption.mean.estimate:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def certified(row: LeaderboardRow) -> str:
    """`78.8 (12 open)`: certified accuracy; `~51.7 (40 open)` for a probabilistic certificate; `–` without a certificate."""
    if row.bracket is None:
        return NOTHING
    sign = "~" if row.bracket.probabilistic else ""
    undecided = f" ({row.bracket.open} open)" if row.bracket.open else ""
    return f"{sign}{percent(row.bracket.certified)}{undecided}"


def rank(row: LeaderboardRow) -> str:
    """`1`; `1–3` if ranks 1 to 3 are possible; `–` without a rank."""
    if row.rank_interval is None:
        return NOTHING
    low, high = row.rank_interval
    return str(low) if low == high else f"{low}–{high}"


def number(value: float, decimals: int = 1) -> str:
    """A number with that many decimals; `–` for NaN and infinity."""
    return f"{value:.{decimals}f}" if math.isfinite(value) else NOTHING


def counted(count: int, thing: str) -> str:
    """`1 block`, `3 blocks`: a number with its noun, given in the singular."""
    return f"{count} {thing}{'' if count == 1 else 's'}"
