"""The leaderboard's rows, computed from the results of a run's cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CORRUPTION, CellInfo, CellResult
from gauntlet.leaderboard.rows.bracket import bracket
from gauntlet.leaderboard.rows.corruptions import corruption_accuracy
from gauntlet.leaderboard.rows.crosschecks import cross_flags
from gauntlet.leaderboard.rows.frames import cells_frame, leaderboard_frame
from gauntlet.leaderboard.rows.ranks import ranks, unrank_reasons
from gauntlet.leaderboard.rows.row import AttackEntry, ClassAccuracy, Row
from gauntlet.leaderboard.rows.worst_case import WorstCase, row_key, worst_case
from gauntlet.leaderboard.stats.proportions import Proportion

__all__ = ["Row", "cells_frame", "leaderboard_frame", "rows"]


def rows(results: Sequence[CellResult]) -> list[Row]:
    """One row per model × defense × threat model, from the results of one run, in the order of the table.

    Cells of different data or suites make rows of their own; corruptions stand in all rows of their model, defense, threat
    model and data, and make one only where there is none. Threat models stand in order of first appearance, then
    data and suites likewise; within them ranked rows by rank and robust accuracy, then the others as they come. Raises
    ValueError as `worst_case` does.
    """
    grouped: dict[tuple[str, ...], list[CellResult]] = {}
    corrupted: dict[tuple[str, ...], list[CellResult]] = {}
    for result in results:
        if result.cell.attack_kind == CORRUPTION:
            corrupted.setdefault(row_key(result.cell)[:-1], []).append(result)
        else:
            grouped.setdefault(row_key(result.cell), []).append(result)
    unsorted = [
        _row(members, _siblings(members[0].cell, grouped), corrupted.get(key[:-1], []))
        for key, members in grouped.items()
    ]
    alone = corrupted.keys() - {key[:-1] for key in grouped}
    unsorted += [_row([], [], members) for key, members in corrupted.items() if key in alone]
    ranked = [
        replace(
            row,
            rank=rank.place if rank else None,
            rank_interval=(rank.place, rank.worst) if rank else None,
            unranked=unrank_reasons(row),
        )
        for row, rank in zip(unsorted, ranks(unsorted), strict=True)
    ]
    threats = list(dict.fromkeys(row.threat for row in ranked))
    sections = list(dict.fromkeys((row.data, row.suite) for row in ranked))

    def place(row: Row) -> tuple[int, int, float, float]:
        section = threats.index(row.threat), sections.index((row.data, row.suite))
        return *section, *((row.rank, -row.robust.estimate) if row.rank is not None else (math.inf, 0.0))

    return sorted(ranked, key=place)


_NO_ATTACK = "No attack was run: what corruptions leave says nothing of an adversary."


def _siblings(cell: CellInfo, grouped: Mapping[tuple[str, ...], list[CellResult]]) -> list[CellResult]:
    """Cells of the rows that differ from the cell's in eps alone."""

    def but_eps(one: CellInfo) -> tuple[str, ...]:
        goal = one.threat.partition(":target=")[2]
        return one.model, one.defense, one.norm, goal, one.data, one.suite

    others = (members for members in grouped.values() if members[0].cell.eps != cell.eps)
    return [result for members in others for result in members if but_eps(result.cell) == but_eps(cell)]


def _row(attacked: list[CellResult], siblings: Sequence[CellResult], corrupted: list[CellResult]) -> Row:
    members = attacked or corrupted
    cell = members[0].cell
    worst = worst_case(members)
    weakest = worst.weakest_class()
    spent = [cells.costs(result) for result in attacked]
    states = {cells.status(result) for result in members}
    proven = bracket(members, worst)
    alarms = [proven.alarm] if proven is not None and proven.alarm else []
    silence = [] if attacked else [_NO_ATTACK]
    if alarms:
        states.add("error")
    return Row(
        model=cell.model,
        defense=cell.defense,
        threat=cell.threat,
        norm=cell.norm,
        eps=cell.eps,
        data=cell.data,
        suite=cell.suite,
        seeds=tuple(sorted({result.cell.seed for result in members})),
        status="error" if "error" in states else "unfinished" if "unfinished" in states else "ok",
        clean=worst.clean if len(worst) else cells.clean_accuracy(max(members, key=cells.covered)),
        robust=worst.accuracy,
        attacks=_attacks(attacked),
        worst_class=ClassAccuracy(*weakest) if weakest else None,
        naive=_naive(members),
        bracket=proven,
        corruption=corruption_accuracy(corrupted),
        seconds=sum(cost.seconds for cost in spent),
        forwards_per_sample=sum(cost.forwards_per_sample for cost in spent),
        backwards_per_sample=sum(cost.backwards_per_sample for cost in spent),
        peak_memory_mib=max((c.peak_memory_mib for c in spent if not math.isnan(c.peak_memory_mib)), default=math.nan),
        flags=tuple(
            dict.fromkeys(
                [*(flag for result in members for flag in cells.flags(result)), *cross_flags(attacked, siblings)]
            )
        ),
        ways=frozenset(way for result in attacked if cells.status(result) == "ok" for way in cells.ways(result)),
        randomised=any(result.cell.randomised for result in members),
        problems=(*alarms, *silence, *(text for result in members if (text := _problem(result)))),
        worst_case=worst,
    )


def _attacks(members: list[CellResult]) -> dict[str, AttackEntry]:
    labels: dict[str, list[CellResult]] = {}
    for result in members:
        if result.cell.adversarial:
            labels.setdefault(result.cell.attack, []).append(result)
    return {label: _entry(seeds) for label, seeds in labels.items()}


def _naive(members: list[CellResult]) -> Proportion | None:
    found = [result for result in members if result.cell.attack_kind == "naive"]
    entry = _entry(found) if found else None
    return entry if isinstance(entry, Proportion) else None


def _entry(seeds: list[CellResult]) -> AttackEntry:
    states = {cells.status(result) for result in seeds}
    if "error" in states:
        return "error"
    if "unfinished" in states:
        return "–"
    found: WorstCase = worst_case(seeds)
    return found.accuracy


def _problem(result: CellResult) -> str:
    what = "Corruption" if result.cell.attack_kind == CORRUPTION else "Attack"
    label = f"{what} {result.cell.attack} (seed {result.cell.seed})"
    if result.error is not None:
        return f"{label} failed: {result.error.kind}: {result.error.message}"
    if cells.status(result) == "unfinished":
        asked = f"of {result.expected} samples" if result.expected else "samples"
        return f"{label} is not finished: {cells.covered(result)} {asked}."
    return ""
