"""The leaderboard's rows, computed from the results of a run's cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gauntlet.leaderboard.results.cell_summary import Status
from gauntlet.leaderboard.results.record import CellInfo, Flag
from gauntlet.leaderboard.results.summary import AnyResult, CellSummary, summaries
from gauntlet.leaderboard.rows.answered import answers, lift
from gauntlet.leaderboard.rows.bracket import bracket
from gauntlet.leaderboard.rows.conditions import conditions
from gauntlet.leaderboard.rows.corruptions import corruption_accuracy
from gauntlet.leaderboard.rows.crosschecks import cross_flags
from gauntlet.leaderboard.rows.ranks import Rank, ranks, unrank_reasons, with_comparisons
from gauntlet.leaderboard.rows.row import AttackEntry, LeaderboardRow, WorstClass
from gauntlet.leaderboard.rows.worst_case import deciding, row_key, worst_case
from gauntlet.leaderboard.stats.proportions import Proportion

_NO_ATTACK = (
    "No attack was run: accuracy under corruptions says nothing about robustness to attacks. Add --attacks standard."
)


def build_rows(results: Sequence[AnyResult]) -> list[LeaderboardRow]:
    """One row per model × defense × threat model, from the results of one run, in the order of the table.

    Cells of different data or suites give separate rows. Corruptions belong to all rows of their model, defense, threat model
    and data; without any such row they give one of their own.

    Rows are ordered by threat model, then by data and suite, each in order of first appearance; within these, ranked rows come
    first, by comparison, rank and robust accuracy, then the others in the order given. Raises ValueError as `worst_case` does.
    """
    attacked: dict[tuple[str, ...], list[CellSummary]] = {}
    corrupted: dict[tuple[str, ...], list[CellSummary]] = {}
    for result in summaries(results):
        if result.cell.corrupts:
            corrupted.setdefault(row_key(result.cell)[:-1], []).append(result)
        else:
            attacked.setdefault(row_key(result.cell), []).append(result)
    radii: dict[tuple[str, ...], list[CellSummary]] = {}
    for members in attacked.values():
        radii.setdefault(_without_eps(members[0].cell), []).extend(members)
    unsorted = [
        _row(members, _siblings(members[0].cell, radii), corrupted.get(key[:-1], []))
        for key, members in attacked.items()
    ]
    with_attacks = {key[:-1] for key in attacked}
    unsorted += [_row([], [], members) for key, members in corrupted.items() if key not in with_attacks]
    threats = list(dict.fromkeys(row.threat for row in unsorted))
    sections = list(dict.fromkeys((row.data, row.suite) for row in unsorted))
    comparisons = list(dict.fromkeys(row.conditions for row in unsorted))

    def order(row: LeaderboardRow) -> tuple[int, int, float, float, float]:
        section = threats.index(row.threat), sections.index((row.data, row.suite))
        if row.rank is None:
            return *section, math.inf, 0.0, 0.0
        return *section, comparisons.index(row.conditions), row.rank, -row.robust.estimate

    return with_comparisons(sorted(map(_ranked, unsorted, ranks(unsorted)), key=order))


def _ranked(row: LeaderboardRow, rank: Rank | None) -> LeaderboardRow:
    interval = (rank.place, rank.worst) if rank else None
    return replace(row, rank=rank.place if rank else None, rank_interval=interval, unranked=unrank_reasons(row))


def _siblings(cell: CellInfo, radii: Mapping[tuple[str, ...], list[CellSummary]]) -> list[CellSummary]:
    """Cells of the rows that differ from the cell's row in eps alone."""
    return [other for other in radii[_without_eps(cell)] if other.cell.eps != cell.eps]


def _without_eps(cell: CellInfo) -> tuple[str, ...]:
    target = cell.threat.partition(":target=")[2]
    return cell.model, cell.defense, cell.norm, target, cell.data, cell.suite


def _row(attacked: list[CellSummary], siblings: Sequence[CellSummary], corrupted: list[CellSummary]) -> LeaderboardRow:
    members = attacked or corrupted
    cell = members[0].cell
    decisive = deciding(members) or members
    worst = worst_case(members)
    weakest = worst.weakest_class()
    costs = [result.costs for result in attacked]
    memory = [cost.peak_memory_mib for cost in costs if not math.isnan(cost.peak_memory_mib)]
    certified = bracket(members, worst)
    answered = answers(members, worst)
    alarms = [certified.alarm] if certified is not None and certified.alarm else []
    finished = [result for result in attacked if result.status == "ok"]
    names = next((result.cell.classes for result in members if result.cell.classes), ())
    return LeaderboardRow(
        model=cell.model,
        defense=cell.defense,
        threat=cell.threat,
        norm=cell.norm,
        eps=cell.eps,
        data=cell.data,
        suite=cell.suite,
        seeds=tuple(sorted({result.cell.seed for result in members})),
        status="error" if alarms else _worst_status(decisive),
        clean=worst.clean if len(worst) else max(members, key=len).clean_accuracy,
        robust=worst.accuracy,
        attacks=_attacks(attacked),
        worst_class=WorstClass(*weakest, names[weakest[0]] if names else "") if weakest else None,
        class_names=names,
        naive=_naive(members),
        bracket=certified,
        corruption=corruption_accuracy(corrupted),
        seconds=sum(cost.seconds for cost in costs),
        forwards_per_sample=sum(cost.forwards_per_sample for cost in costs),
        backwards_per_sample=sum(cost.backwards_per_sample for cost in costs),
        peak_memory_mib=max(memory, default=math.nan),
        flags=lift(_flags(members, cross_flags(attacked, siblings)), answered),
        techniques=frozenset(technique for result in finished for technique in result.techniques),
        answered=answered.needs,
        randomised=any(result.cell.randomised for result in members),
        problems=(*alarms, *filter(None, map(_problem, decisive)), *([] if attacked else [_NO_ATTACK])),
        worst_case=worst,
        conditions=conditions(members, worst),
    )


def _worst_status(members: Sequence[CellSummary]) -> Status:
    states = {result.status for result in members}
    return "error" if "error" in states else "unfinished" if "unfinished" in states else "ok"


def _flags(members: Sequence[CellSummary], crosschecks: Sequence[Flag]) -> tuple[Flag, ...]:
    """Each once; of flags that differ in their figures alone, the one with most of them."""
    recorded = (flag for result in members for flag in result.flags)
    found: dict[Flag, Flag] = {}
    for flag in (*recorded, *crosschecks):
        bare = replace(flag, evidence=())
        if bare not in found or len(found[bare].evidence) < len(flag.evidence):
            found[bare] = flag
    return tuple(found.values())


def _attacks(members: Sequence[CellSummary]) -> dict[str, AttackEntry]:
    labels: dict[str, list[CellSummary]] = {}
    for result in members:
        if result.cell.adversarial:
            labels.setdefault(result.cell.attack, []).append(result)
    return {label: _entry(seeds) for label, seeds in labels.items()}


def _naive(members: Sequence[CellSummary]) -> Proportion | None:
    naive = [result for result in members if result.cell.attack_kind == "naive"]
    entry = _entry(naive) if naive else None
    return entry if isinstance(entry, Proportion) else None


def _entry(seeds: Sequence[CellSummary]) -> AttackEntry:
    status = _worst_status(seeds)
    if status == "ok":
        return "–" if all(seed.nothing_replayed for seed in seeds) else worst_case(seeds).accuracy
    return "error" if status == "error" else "–"


def _problem(result: CellSummary) -> str:
    kind = "Corruption" if result.cell.corrupts else "Attack"
    label = f"{kind} {result.cell.attack} (seed {result.cell.seed})"
    if result.error is not None:
        return f"{label} failed: {result.error.kind}: {result.error.message}"
    if result.status == "unfinished":
        expected = f"of {result.expected} samples" if result.expected else "samples"
        return f"{label} is not finished: {len(result)} {expected}. Run the same command again."
    return ""
