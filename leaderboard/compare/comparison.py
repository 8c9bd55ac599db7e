"""Comparison of the rows of one or more runs: paired differences, ranks, and the samples that each attack broke."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from gauntlet.leaderboard.compare.broken_by import BrokenBy, broken_by
from gauntlet.leaderboard.results.summary import AnyResult
from gauntlet.leaderboard.rows.conditions import Conditions, differences
from gauntlet.leaderboard.rows.ranks import Rank, rank_outcomes
from gauntlet.leaderboard.rows.row import LeaderboardRow
from gauntlet.leaderboard.stats.paired import tango_upper
from gauntlet.leaderboard.stats.proportions import CONFIDENCE, mcnemar


class CompareError(ValueError):
    """No rows can be compared; the message gives the reason."""


@dataclass(frozen=True, eq=False)
class RunRow:
    """A row of one run, with its cells."""

    row: LeaderboardRow
    results: tuple[AnyResult, ...]
    run: str
    """Name of the run."""


@dataclass(frozen=True, eq=False)
class ComparedRow:
    """A row in its group."""

    label: str
    """Model and defense, and the run if several runs have them."""
    run: str
    row: LeaderboardRow
    rank: Rank | None
    """Among the rows of the group; None for the reasons in `row.unranked`."""
    broken_by: tuple[BrokenBy, ...]
    """In the order of the plan."""

    @property
    def wrong_clean(self) -> int:
        """Number of samples that are misclassified when clean."""
        return int(np.count_nonzero(~self.row.worst_case.correct))

    @property
    def broken(self) -> int:
        """Number of samples that are correct when clean and that an attack broke."""
        return int(np.count_nonzero(self.row.worst_case.correct & ~self.row.worst_case.robust))


@dataclass(frozen=True)
class PairedDifference:
    """The difference between two rows of a group, given by their indices in it."""

    first: int
    second: int
    estimate: float
    """Robust accuracy of the first minus that of the second, a share."""
    interval: tuple[float, float]
    """The 95 % interval of this pair alone."""
    only_first: int
    """Number of samples on which the first alone is robust."""
    only_second: int
    p_value: float | None
    """Exact McNemar test, two-sided, with Holm's correction over the pairs of ranked rows; None if either row has no rank."""


@dataclass(frozen=True, eq=False)
class ComparisonGroup:
    """Rows that can be compared: the same attacks on the same samples."""

    threat: str
    data: str
    suite: str
    seeds: tuple[int, ...]
    n: int
    rows: tuple[ComparedRow, ...]
    """Ranked rows by rank and robust accuracy, then the others by robust accuracy."""
    differences: tuple[PairedDifference, ...]
    """Of all pairs first < second, in order."""
    separation: str
    """How the group differs from the most similar group before it; empty for the first group."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Comparable rows, in groups."""

    groups: tuple[ComparisonGroup, ...]
    missing: tuple[tuple[str, tuple[str, ...]], ...]
    """Labels of rows without a sample that every attack covered, each with the reasons."""


def difference_interval(only_first: int, only_second: int, n: int) -> tuple[float, float]:
    """The two-sided 95 % interval of (only_first - only_second) / n: Tango's score interval, see `paired.tango_upper`.

    Raises ValueError for counts that do not fit `n`.
    """
    one_sided = (1 + CONFIDENCE) / 2
    return -tango_upper(only_second, only_first, n, one_sided), tango_upper(only_first, only_second, n, one_sided)


def compare(rows: Sequence[RunRow]) -> Comparison:
    """Compare all pairs of rows that can be compared; other rows form groups of their own, with the reason.

    A row that several runs answered from the same stored blocks counts once. Ranks are computed as on the leaderboard
    (`ranks.rank_outcomes`), within each group. Raises CompareError if no two rows can be compared.
    """
    distinct = _without_duplicates(rows)
    if len(distinct) < 2:
        raise CompareError(
            f"only {len(distinct)} row{'' if len(distinct) == 1 else 's'} to compare: give runs that have two or more"
        )
    labels = _labels(distinct)
    grouped: dict[Conditions, list[int]] = {}
    missing = []
    for number, member in enumerate(distinct):
        if len(member.row.worst_case):
            grouped.setdefault(member.row.conditions, []).append(number)
        else:
            missing.append((labels[number], member.row.unranked))
    conditions = list(grouped)
    separations = [_separation(conditions[:number], own) for number, own in enumerate(conditions)]
    groups = tuple(
        _group(
            [(distinct[number], labels[number]) for number in members],
            f"not comparable with group {similar}: {reason}" if reason else "",
        )
        for members, (similar, reason) in zip(grouped.values(), separations, strict=True)
    )
    if not any(group.differences for group in groups):
        without_samples = (f"{label} has no sample" for label, _ in missing)
        reasons = "; ".join([*(reason for _, reason in separations[1:]), *without_samples])
        raise CompareError(f"no two of the {len(distinct)} rows can be compared: {reasons}")
    return Comparison(groups, tuple(missing))


def _without_duplicates(rows: Sequence[RunRow]) -> list[RunRow]:
    """Leave out rows that consist of the same blocks as an earlier row."""
    distinct: dict[object, RunRow] = {}
    for number, member in enumerate(rows):
        keys = tuple(block.key for result in member.results for block in result.blocks)
        row = member.row
        identity = (row.title, row.conditions, keys) if keys and row.status == "ok" else number
        distinct.setdefault(identity, member)
    return list(distinct.values())


def _labels(rows: Sequence[RunRow]) -> list[str]:
    """Titles, with the run for titles that several runs have."""
    runs: dict[str, set[str]] = {}
    for member in rows:
        runs.setdefault(member.row.title, set()).add(member.run)
    return [f"{m.row.title} [{m.run}]" if len(runs[m.row.title]) > 1 else m.row.title for m in rows]


def _separation(earlier: Sequence[Conditions], own: Conditions) -> tuple[int, str]:
    """The number, from 1, of the most similar earlier group, and how it differs; 0 and an empty text if there is none."""
    reasons = [list(differences(other, own)) for other in earlier]
    number = min(range(len(reasons)), key=lambda place: len(reasons[place]), default=-1)
    return number + 1, ", ".join(reasons[number]) if reasons else ""


def _group(members: Sequence[tuple[RunRow, str]], separation: str) -> ComparisonGroup:
    ranked = [number for number, (member, _) in enumerate(members) if not member.row.unranked]
    pairs, places = rank_outcomes([members[number][0].row.worst_case.robust for number in ranked])
    rank = dict(zip(ranked, places, strict=True))
    adjusted = {frozenset((ranked[pair.first], ranked[pair.second])): pair.p_value for pair in pairs}

    def order(number: int) -> tuple[bool, int, float]:
        place = rank[number].place if number in rank else 0
        return number not in rank, place, -members[number][0].row.robust.estimate

    ordered = sorted(range(len(members)), key=order)
    rows = tuple(_compared(*members[number], rank.get(number)) for number in ordered)
    first = rows[0].row
    differences = tuple(
        _difference(a, b, rows, adjusted.get(frozenset((ordered[a], ordered[b]))))
        for a, b in combinations(range(len(rows)), 2)
    )
    return ComparisonGroup(
        first.threat, first.data, first.suite, first.seeds, first.robust.n, rows, differences, separation
    )


def _compared(member: RunRow, label: str, rank: Rank | None) -> ComparedRow:
    interval = (rank.place, rank.worst) if rank else None
    row = replace(member.row, rank=rank.place if rank else None, rank_interval=interval)
    return ComparedRow(label, member.run, row, rank, broken_by(row.worst_case, member.results))


def _difference(a: int, b: int, rows: Sequence[ComparedRow], p_value: float | None) -> PairedDifference:
    test = mcnemar(rows[a].row.worst_case.robust, rows[b].row.worst_case.robust)
    n = rows[a].row.robust.n
    interval = difference_interval(test.only_first, test.only_second, n)
    estimate = (test.only_first - test.only_second) / n
    return PairedDifference(a, b, estimate, interval, test.only_first, test.only_second, p_value)
