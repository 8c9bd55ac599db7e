"""Figures as readers see them."""

from __future__ import annotations

import math

from gauntlet.leaderboard.rows.row import Row
from gauntlet.leaderboard.stats.proportions import Proportion

NOTHING = "–"
"""Stands where there is no figure."""


def meaning(threat: str) -> str:
    """What robust means where the threat model's text names a target; empty where it does not."""
    _, named, target = threat.partition(":target=")
    if not named:
        return ""
    rules = {"next": "the class after its label", "random": "the other class that was drawn for it"}
    goal = rules.get(target, f"class {target}")
    stands = "" if target in rules else " (which a sample of that class cannot be)"
    return f"Targeted: robust means classified correctly clean and not moved to {goal}{stands} by any attack."


def percent(share: Proportion) -> str:
    """`72.9`, one decimal, without the sign."""
    return f"{100 * share.estimate:.1f}" if share.n else NOTHING


def with_interval(share: Proportion) -> str:
    """`72.9 [69.7, 76.0]`, in percent, with the 95 % interval."""
    if not share.n:
        return NOTHING
    low, high = share.interval
    return f"{percent(share)} [{100 * low:.1f}, {100 * high:.1f}]"


def robust(row: Row) -> str:
    """The worst case, after what the naive attack alone reports: `96.7 → 7.3 [5.6, 9.3]`."""
    before = f"{percent(row.naive)} → " if row.naive is not None else ""
    return before + with_interval(row.robust)


def corrupted(row: Row) -> str:
    """`83.2 [82.0, 84.4]`: mean accuracy under corruptions; `error` where one failed, `–` where there is no figure."""
    found = row.corruption
    if found is None:
        return NOTHING
    if found.mean.n == 0:
        return "error" if "error" in found.by_label.values() else NOTHING
    low, high = found.mean.interval
    return f"{100 * found.mean.estimate:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def certified(row: Row) -> str:
    """`78.8 (12 open)`, `~51.7 (40 open)` of a proof with high probability; `–` where nothing was to be proven."""
    if row.bracket is None:
        return NOTHING
    sign = "~" if row.bracket.probabilistic else ""
    still = f" ({row.bracket.open} open)" if row.bracket.open else ""
    return f"{sign}{percent(row.bracket.certified)}{still}"


def rank(row: Row) -> str:
    """`1`, `1–3` where ranks 1 to 3 are possible, or `–`."""
    if row.rank_interval is None:
        return NOTHING
    low, high = row.rank_interval
    return str(low) if low == high else f"{low}–{high}"


def number(value: float, decimals: int = 1) -> str:
    """A number, or `–` where there is none."""
    return f"{value:.{decimals}f}" if math.isfinite(value) else NOTHING
