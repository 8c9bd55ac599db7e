"""Ranks that a paired test supports: rows that it cannot tell apart share one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from gauntlet.leaderboard.row import Row
from gauntlet.leaderboard.statistics import holm, mcnemar

ALPHA = 0.05
"""Chance of any false "better" among all pairs of one comparison."""


@dataclass(frozen=True)
class Rank:
    """A row's place among the ranked rows of its comparison."""

    place: int
    """1 + the number of rows that are significantly better."""
    worst: int
    """The number of ranked rows − the number of rows that are significantly worse."""


def unrank_reasons(row: Row) -> tuple[str, ...]:
    """Why the row has no rank, a sentence each; empty where it has one."""
    reasons = list(row.problems)
    if not row.problems and row.robust.n == 0:
        reasons.append("No sample was covered by every attack of the row.")
    for flag in row.flags:
        if flag.stands(row.ways):
            missing = [way for way in flag.needs if way not in row.ways]
            lifted = f" (no rank before attacks by {', '.join(missing)}: --attacks adaptive)" if missing else ""
            reasons.append(f"{flag.message}{lifted}")
    if row.randomised and "eot" not in row.ways and not any("eot" in flag.needs for flag in row.flags):
        reasons.append("The model is randomised: a rank needs attacks on the expectation over its draws (EOT).")
    return tuple(dict.fromkeys(reasons))


def ranks(rows: Sequence[Row]) -> list[Rank | None]:
    """The rank of each row, in the order given; None where `unrank_reasons` has one.

    Rows are compared where their data, sample ids in order, threat model, suite and seeds are the same. One row is
    better than another where its robust accuracy is higher and the two-sided exact McNemar test on their worst-case
    bits, with Holm's correction over all pairs of the comparison, gives p < 0.05. Rows without a rank take no part.
    """
    groups: defaultdict[object, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if not unrank_reasons(row):
            groups[row.comparison].append(index)
    found: list[Rank | None] = [None] * len(rows)
    for members in groups.values():
        better, worse = _compare(rows, members)
        for index in members:
            found[index] = Rank(1 + better[index], len(members) - worse[index])
    return found


def _compare(rows: Sequence[Row], members: list[int]) -> tuple[Counter[int], Counter[int]]:
    """For each member, how many others are significantly better, and how many significantly worse."""
    pairs = list(combinations(members, 2))
    tests = [mcnemar(rows[a].worst_case.robust, rows[b].worst_case.robust) for a, b in pairs]
    better: Counter[int] = Counter()
    worse: Counter[int] = Counter()
    for (a, b), test, p in zip(pairs, tests, holm([test.p_value for test in tests]), strict=True):
        if p < ALPHA:
            winner, loser = (a, b) if test.only_first > test.only_second else (b, a)
            better[loser] += 1
            worse[winner] += 1
    return better, worse
