"""Ranks that a paired test supports: rows that it cannot tell apart share one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.rows.row import Row
from gauntlet.leaderboard.stats.proportions import PairedTest, holm, mcnemar

ALPHA = 0.05
"""Chance of any false "better" among all pairs of one comparison."""


@dataclass(frozen=True)
class Rank:
    """A row's place among the ranked rows of its comparison."""

    place: int
    """1 + the number of rows that are significantly better."""
    worst: int
    """The number of ranked rows − the number of rows that are significantly worse."""


@dataclass(frozen=True)
class Pair:
    """Two of the rows of one comparison, by their numbers in it, tested against each other."""

    first: int
    second: int
    test: PairedTest
    """Two-sided; its p-value is of this pair alone."""
    p_value: float
    """Adjusted by Holm's method over all pairs of the comparison."""


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
        _, places = rank_outcomes([rows[index].worst_case.robust for index in members])
        for index, place in zip(members, places, strict=True):
            found[index] = place
    return found


def rank_outcomes(outcomes: Sequence[npt.NDArray[np.bool_]]) -> tuple[list[Pair], list[Rank]]:
    """All pairs (first < second) of bool arrays (N,) on the same samples, in order, and the rank of each array.

    One is better than another where it succeeds on more samples and the pair's adjusted p-value is below `ALPHA`. Raises
    ValueError where the shapes differ.
    """
    pairs = list(combinations(range(len(outcomes)), 2))
    tests = [mcnemar(outcomes[a], outcomes[b]) for a, b in pairs]
    adjusted = holm([test.p_value for test in tests])
    found = [Pair(a, b, test, float(p)) for (a, b), test, p in zip(pairs, tests, adjusted, strict=True)]
    better: Counter[int] = Counter()
    worse: Counter[int] = Counter()
    for pair in found:
        if pair.p_value < ALPHA:
            first_wins = pair.test.only_first > pair.test.only_second
            winner, loser = (pair.first, pair.second) if first_wins else (pair.second, pair.first)
            better[loser] += 1
            worse[winner] += 1
    count = len(outcomes)
    return found, [Rank(1 + better[number], count - worse[number]) for number in range(count)]
