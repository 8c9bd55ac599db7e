"""Ranks that a paired test supports: rows whose difference is not significant share a rank."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from string import ascii_uppercase

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.rows.reasons import reasons
from gauntlet.leaderboard.rows.row import LeaderboardRow
from gauntlet.leaderboard.stats.proportions import PairedTest, holm, mcnemar_pairs

ALPHA = 0.05
"""Largest chance that any row of a comparison is wrongly called better than another."""


@dataclass(frozen=True)
class Rank:
    """The rank of a row among the ranked rows of its comparison, as an interval."""

    place: int
    """1 + the number of rows that are significantly better."""
    worst: int
    """The number of ranked rows − the number of rows that are significantly worse."""


@dataclass(frozen=True)
class RowPair:
    """The test of two rows of one comparison, given by their indices in it."""

    first: int
    second: int
    test: PairedTest
    """Two-sided; its p-value is not adjusted."""
    p_value: float
    """Adjusted by Holm's method over all pairs of the comparison."""


def unrank_reasons(row: LeaderboardRow) -> tuple[str, ...]:
    """The reasons why the row has no rank, as sentences; empty if it has one."""
    return tuple(reason.sentence for reason in reasons(row) if reason.blocks)


def ranks(rows: Sequence[LeaderboardRow]) -> list[Rank | None]:
    """The rank of each row, in the order given; None for rows with `unrank_reasons`.

    Rows are compared if their `conditions` are equal: the attacks as they were asked for, threat model, data, samples, suite
    and seeds, and what can be observed of the model. A row is better than another if its robust accuracy is higher and the
    two-sided exact McNemar test on their worst-case outcomes, with Holm's correction over all pairs of the comparison, gives
    p < 0.05. Rows without a rank take no part.
    """
    comparisons: defaultdict[object, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if not unrank_reasons(row):
            comparisons[row.conditions].append(index)
    result: list[Rank | None] = [None] * len(rows)
    for members in comparisons.values():
        _, places = rank_outcomes([rows[index].worst_case.robust for index in members])
        for index, place in zip(members, places, strict=True):
            result[index] = place
    return result


def with_comparisons(rows: Sequence[LeaderboardRow]) -> list[LeaderboardRow]:
    """Name the comparisons of ranked rows `A`, `B`, … (after `Z`: `AA`) in the order given, with their numbers of rows."""
    counts = Counter(row.conditions for row in rows if row.rank is not None)
    names = {conditions: _letters(number) for number, conditions in enumerate(counts)}
    return [
        replace(row, comparison=names[row.conditions], compared=counts[row.conditions]) if row.rank is not None else row
        for row in rows
    ]


def _letters(number: int) -> str:
    """`A` for 0, `Z` for 25, `AA` for 26."""
    before, last = divmod(number, 26)
    return (_letters(before - 1) if before else "") + ascii_uppercase[last]


def rank_outcomes(outcomes: Sequence[npt.NDArray[np.bool_]]) -> tuple[list[RowPair], list[Rank]]:
    """All pairs (first < second) of bool arrays (N,) on the same samples, in order, and the rank of each array.

    An array is better than another if it has more successes and the pair's adjusted p-value is below `ALPHA`. Raises
    ValueError if the shapes differ.
    """
    indices = list(combinations(range(len(outcomes)), 2))
    tests = mcnemar_pairs(outcomes)
    adjusted = holm([test.p_value for test in tests])
    pairs = [RowPair(a, b, test, float(p)) for (a, b), test, p in zip(indices, tests, adjusted, strict=True)]
    better: Counter[int] = Counter()
    worse: Counter[int] = Counter()
    for pair in pairs:
        if pair.p_value < ALPHA:
            first_wins = pair.test.only_first > pair.test.only_second
            winner, loser = (pair.first, pair.second) if first_wins else (pair.second, pair.first)
            better[loser] += 1
            worse[winner] += 1
    count = len(outcomes)
    return pairs, [Rank(1 + better[index], count - worse[index]) for index in range(count)]
