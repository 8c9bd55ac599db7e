"""Rows of one or more runs against each other: paired differences, ranks, and which attack broke what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

import numpy as np

from gauntlet.leaderboard.compare.breakers import Breaker, breakers
from gauntlet.leaderboard.results.record import CellResult
from gauntlet.leaderboard.rows.ranks import Rank, rank_outcomes
from gauntlet.leaderboard.rows.row import Row
from gauntlet.leaderboard.stats.paired import tango_upper
from gauntlet.leaderboard.stats.proportions import CONFIDENCE, mcnemar


class CompareError(ValueError):
    """There is nothing to compare; the message says why."""


@dataclass(frozen=True, eq=False)
class Contender:
    """A row of one run, with its cells."""

    row: Row
    results: tuple[CellResult, ...]
    source: str
    """Which run it is from."""


@dataclass(frozen=True, eq=False)
class Line:
    """A row in its group."""

    label: str
    """Model and defense, and the run where these stand in several."""
    source: str
    row: Row
    rank: Rank | None
    """Among the group's rows; None where `row.unranked` says why."""
    breakers: tuple[Breaker, ...]
    """In the order of the plan."""

    @property
    def wrong_clean(self) -> int:
        """Samples that are wrong before any attack."""
        return int(np.count_nonzero(~self.row.worst_case.correct))

    @property
    def broken(self) -> int:
        """Samples that are right when clean and that an attack broke."""
        return int(np.count_nonzero(self.row.worst_case.correct & ~self.row.worst_case.robust))


@dataclass(frozen=True)
class Difference:
    """Two rows of a group, by their numbers in it."""

    first: int
    second: int
    estimate: float
    """Robust accuracy of the first minus that of the second, a share."""
    interval: tuple[float, float]
    """The 95 % interval of this pair alone."""
    only_first: int
    """Samples on which the first alone is robust."""
    only_second: int
    p_value: float | None
    """Exact McNemar test, two-sided, with Holm's correction over the ranked rows' pairs; None where either has no rank."""


@dataclass(frozen=True, eq=False)
class Group:
    """Rows that can be compared: the same samples, faced with the same attacks."""

    threat: str
    data: str
    suite: str
    seeds: tuple[int, ...]
    n: int
    lines: tuple[Line, ...]
    """Ranked rows by rank and robust accuracy, then the others by robust accuracy."""
    differences: tuple[Difference, ...]
    """Of all pairs first < second, in order."""
    apart: str
    """Why it cannot be compared with the group before it that is most like it; empty of the first."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What can be compared, group by group."""

    groups: tuple[Group, ...]
    missing: tuple[tuple[str, tuple[str, ...]], ...]
    """Rows without a sample that every attack covered, and why."""


@dataclass(frozen=True)
class _Terms:
    """What two rows must share to be compared."""

    threat: str
    data: str
    suite: str
    seeds: tuple[int, ...]
    attacks: tuple[tuple[str, str], ...]
    """Labels and settings. A suite's name does not say what is in it: of `custom` it is whatever was asked for."""
    ids: tuple[str, ...]
    images: tuple[str, ...]
    """The digests of the blocks' images and labels: two files of one name, or one that was changed, may share ids."""


def difference_interval(only_first: int, only_second: int, n: int) -> tuple[float, float]:
    """The two-sided 95 % interval of (only_first - only_second) / n: Tango's score interval, see `paired.tango_upper`.

    Raises ValueError for counts that do not fit `n`.
    """
    one_sided = (1 + CONFIDENCE) / 2
    return -tango_upper(only_second, only_first, n, one_sided), tango_upper(only_first, only_second, n, one_sided)


def compare(contenders: Sequence[Contender]) -> Comparison:
    """Pair all rows that can be compared; the others stand in groups of their own, with the reason.

    A row that several runs share, answered from the same stored blocks, counts once. Ranks are computed as the leaderboard's
    (`ranks.rank_outcomes`), within each group. Raises CompareError where no two rows can be compared.
    """
    known = _once(contenders)
    if len(known) < 2:
        raise CompareError(
            f"only {len(known)} row{'' if len(known) == 1 else 's'} to compare: give runs that have two or more"
        )
    labels = _labels(known)
    grouped: dict[_Terms, list[int]] = {}
    missing = []
    for number, one in enumerate(known):
        if len(one.row.worst_case):
            grouped.setdefault(_terms(one), []).append(number)
        else:
            missing.append((labels[number], one.row.unranked))
    terms = list(grouped)
    apart = [_apart(terms[:number], one) for number, one in enumerate(terms)]
    groups = tuple(
        _group(
            [(known[number], labels[number]) for number in members],
            f"not comparable with group {most}: {why}" if why else "",
        )
        for members, (most, why) in zip(grouped.values(), apart, strict=True)
    )
    if not any(group.differences for group in groups):
        why = "; ".join([*(reason for _, reason in apart[1:]), *(f"{label} has no sample" for label, _ in missing)])
        raise CompareError(f"no two of the {len(known)} rows can be compared: {why}")
    return Comparison(groups, tuple(missing))


def _once(contenders: Sequence[Contender]) -> list[Contender]:
    """Without rows that are answered from the very blocks of an earlier one."""
    found: dict[object, Contender] = {}
    for number, one in enumerate(contenders):
        keys = tuple(block.key for result in one.results for block in result.blocks)
        same = (one.row.title, one.row.comparison, keys) if keys and one.row.status == "ok" else number
        found.setdefault(same, one)
    return list(found.values())


def _labels(contenders: Sequence[Contender]) -> list[str]:
    """Titles, with the run where a title stands in several."""
    sources: dict[str, set[str]] = {}
    for one in contenders:
        sources.setdefault(one.row.title, set()).add(one.source)
    return [f"{o.row.title} [{o.source}]" if len(sources[o.row.title]) > 1 else o.row.title for o in contenders]


def _terms(one: Contender) -> _Terms:
    data, threat, suite, seeds, ids = one.row.comparison
    attacks = {(r.cell.attack, r.cell.attack_spec) for r in one.results if r.cell.adversarial}
    blocks = max((result.blocks for result in one.results), key=len)
    images = tuple(str(block.provenance.get("data") or "") for block in blocks)
    return _Terms(threat, data, suite, seeds, tuple(sorted(attacks)), ids, images)


_WORDS: Final = {"threat": "threat model", "data": "data", "suite": "suite", "seeds": "seeds"}


def _apart(earlier: Sequence[_Terms], one: _Terms) -> tuple[int, str]:
    """Which of the earlier terms, from 1, are most like these, and how they differ; 0 and nothing where there are none."""
    reasons = [_differ(other, one) for other in earlier]
    number = min(range(len(reasons)), key=lambda place: len(reasons[place]), default=-1)
    return number + 1, ", ".join(reasons[number]) if reasons else ""


def _differ(other: _Terms, one: _Terms) -> list[str]:
    found = []
    for name, word in _WORDS.items():
        old, new = getattr(other, name), getattr(one, name)
        if old != new:
            found.append(f"{word} {_text(new)} instead of {_text(old)}")
    if other.attacks != one.attacks and other.threat == one.threat and other.suite == one.suite:
        unlike = sorted({label for label, _ in set(other.attacks) ^ set(one.attacks)})
        found.append(f"other attacks or settings ({', '.join(unlike)})")
    if other.ids != one.ids:
        common = len(set(other.ids) & set(one.ids))
        found.append(f"other samples ({len(one.ids)} instead of {len(other.ids)}, {common} in common)")
    elif other.images != one.images:
        found.append("other images or labels under the same ids")
    return found


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _group(members: Sequence[tuple[Contender, str]], apart: str) -> Group:
    ranked = [number for number, (one, _) in enumerate(members) if not one.row.unranked]
    pairs, places = rank_outcomes([members[number][0].row.worst_case.robust for number in ranked])
    rank = dict(zip(ranked, places, strict=True))
    adjusted = {frozenset((ranked[pair.first], ranked[pair.second])): pair.p_value for pair in pairs}

    def order(number: int) -> tuple[bool, int, float]:
        place = rank[number].place if number in rank else 0
        return number not in rank, place, -members[number][0].row.robust.estimate

    ordered = sorted(range(len(members)), key=order)
    lines = tuple(_line(*members[number], rank.get(number)) for number in ordered)
    first = lines[0].row
    differences = tuple(
        _difference(a, b, lines, adjusted.get(frozenset((ordered[a], ordered[b]))))
        for a, b in combinations(range(len(lines)), 2)
    )
    return Group(first.threat, first.data, first.suite, first.seeds, first.robust.n, lines, differences, apart)


def _line(one: Contender, label: str, rank: Rank | None) -> Line:
    interval = (rank.place, rank.worst) if rank else None
    row = replace(one.row, rank=rank.place if rank else None, rank_interval=interval)
    return Line(label, one.source, row, rank, breakers(row.worst_case, one.results))


def _difference(a: int, b: int, lines: Sequence[Line], p_value: float | None) -> Difference:
    test = mcnemar(lines[a].row.worst_case.robust, lines[b].row.worst_case.robust)
    n = lines[a].row.robust.n
    interval = difference_interval(test.only_first, test.only_second, n)
    estimate = (test.only_first - test.only_second) / n
    return Difference(a, b, estimate, interval, test.only_first, test.only_second, p_value)
