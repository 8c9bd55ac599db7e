"""The rows of the leaderboard, sample by sample."""

from __future__ import annotations

import math
from dataclasses import replace

from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.rows.answered import lift
from gauntlet.leaderboard.rows.build_rows import _NO_ATTACK
from gauntlet.leaderboard.rows.ranks import ranks, unrank_reasons, with_comparisons
from gauntlet.leaderboard.rows.row import LeaderboardRow, WorstClass
from gauntlet.leaderboard.stats.proportions import Proportion
from simple_rows.answered import answers
from simple_rows.bracket import bracket
from simple_rows.conditions import conditions
from simple_rows.corruptions import corruption_accuracy
from simple_rows.crosschecks import cross_flags
from simple_rows.worst_case import deciding, row_key, worst_case


def build_rows(results):
    """One row per model × defense × threat model, from the results of one run, in the order of the table.

    Cells of different data or suites give separate rows. Corruptions belong to all rows of their model, defense, threat model
    and data; without any such row they give one of their own.

    Rows are ordered by threat model, then by data and suite, each in order of first appearance; within these, ranked rows come
    first, by comparison, rank and robust accuracy, then the others in the order given. Raises ValueError as `worst_case` does.
    """
    attacked = {}
    corrupted = {}
    for result in results:
        if result.cell.corrupts:
            corrupted.setdefault(row_key(result.cell)[:-1], []).append(result)
        else:
            attacked.setdefault(row_key(result.cell), []).append(result)
    unsorted = [
        _row(members, _siblings(members[0].cell, attacked), corrupted.get(key[:-1], []))
        for key, members in attacked.items()
    ]
    with_attacks = {key[:-1] for key in attacked}
    unsorted += [_row([], [], members) for key, members in corrupted.items() if key not in with_attacks]
    threats = list(dict.fromkeys(row.threat for row in unsorted))
    sections = list(dict.fromkeys((row.data, row.suite) for row in unsorted))
    comparisons = list(dict.fromkeys(row.conditions for row in unsorted))

    def order(row):
        section = threats.index(row.threat), sections.index((row.data, row.suite))
        if row.rank is None:
            return *section, math.inf, 0.0, 0.0
        return *section, comparisons.index(row.conditions), row.rank, -row.robust.estimate

    return with_comparisons(sorted(map(_ranked, unsorted, ranks(unsorted)), key=order))


def _ranked(row, rank):
    interval = (rank.place, rank.worst) if rank else None
    return replace(row, rank=rank.place if rank else None, rank_interval=interval, unranked=unrank_reasons(row))


def _siblings(cell, attacked):
    """Cells of the rows that differ from the cell's row in eps alone."""

    def without_eps(other):
        target = other.threat.partition(":target=")[2]
        return other.model, other.defense, other.norm, target, other.data, other.suite

    others = (members for members in attacked.values() if members[0].cell.eps != cell.eps)
    return [result for members in others for result in members if without_eps(result.cell) == without_eps(cell)]


def _row(attacked, siblings, corrupted):
    members = attacked or corrupted
    cell = members[0].cell
    decisive = deciding(members) or members
    worst = worst_case(members)
    weakest = worst.weakest_class()
    costs = [cells.costs(result) for result in attacked]
    memory = [cost.peak_memory_mib for cost in costs if not math.isnan(cost.peak_memory_mib)]
    certified = bracket(members, worst)
    answered = answers(members, worst)
    alarms = [certified.alarm] if certified is not None and certified.alarm else []
    finished = [result for result in attacked if cells.status(result) == "ok"]
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
        clean=worst.clean if len(worst) else cells.clean_accuracy(max(members, key=cells.covered)),
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
        techniques=frozenset(technique for result in finished for technique in cells.techniques(result)),
        answered=answered.needs,
        randomised=any(result.cell.randomised for result in members),
        problems=(*alarms, *filter(None, map(_problem, decisive)), *([] if attacked else [_NO_ATTACK])),
        worst_case=worst,
        conditions=conditions(members, worst),
    )


def _worst_status(members):
    states = {cells.status(result) for result in members}
    return "error" if "error" in states else "unfinished" if "unfinished" in states else "ok"


def _flags(members, crosschecks):
    """Each once; of flags that differ in their figures alone, the one with most of them."""
    recorded = (flag for result in members for flag in cells.flags(result))
    found = {}
    for flag in (*recorded, *crosschecks):
        bare = replace(flag, evidence=())
        if bare not in found or len(found[bare].evidence) < len(flag.evidence):
            found[bare] = flag
    return tuple(found.values())


def _attacks(members):
    labels = {}
    for result in members:
        if result.cell.adversarial:
            labels.setdefault(result.cell.attack, []).append(result)
    return {label: _entry(seeds) for label, seeds in labels.items()}


def _naive(members):
    naive = [result for result in members if result.cell.attack_kind == "naive"]
    entry = _entry(naive) if naive else None
    return entry if isinstance(entry, Proportion) else None


def _entry(seeds):
    status = _worst_status(seeds)
    if status == "ok":
        return "–" if all(map(cells.nothing_replayed, seeds)) else worst_case(seeds).accuracy
    return "error" if status == "error" else "–"


def _problem(result):
    kind = "Corruption" if result.cell.corrupts else "Attack"
    label = f"{kind} {result.cell.attack} (seed {result.cell.seed})"
    if result.error is not None:
        return f"{label} failed: {result.error.kind}: {result.error.message}"
    if cells.status(result) == "unfinished":
        expected = f"of {result.expected} samples" if result.expected else "samples"
        return f"{label} is not finished: {cells.covered(result)} {expected}. Run the same command again."
    return ""
