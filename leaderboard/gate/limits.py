"""The gate's limits that need no test: costs relative to the baseline, and floors of the robust accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np

from gauntlet.leaderboard.gate.baseline import BaselineCell
from gauntlet.leaderboard.stats.proportions import Proportion

CellPairs = Sequence[tuple[BaselineCell, BaselineCell]]
"""Cells of the baseline, each with its partner in the run."""


def over_budget(pairs: CellPairs, passes: float, memory: float) -> Iterator[str]:
    """A sentence for each cell whose passes or peak memory exceed these multiples of the baseline's.

    Totals are over the same samples. Time is not limited, because it depends on the machine and its load.
    """
    for old, new in pairs:
        before, now = _passes(old), _passes(new)
        if now > passes * before:
            more_robust = old.robust.sum() < new.robust.sum()
            reason = (
                "; attacks on a more robust model cost more: if that is the reason, accept a new baseline"
                if more_robust
                else ""
            )
            yield f"{new.title}: {before:,.0f} → {now:,.0f} passes, more than ×{passes:g}{reason}."
        # On a CPU the peak is that of the whole process, including everything else that ran in it.
        if old.device == new.device == "cuda" and new.peak_memory_mib > memory * old.peak_memory_mib:
            change = f"{old.peak_memory_mib:,.0f} → {new.peak_memory_mib:,.0f} MiB"
            yield f"{new.title}: peak memory {change}, more than ×{memory:g}."


def below_floors(cells: Sequence[BaselineCell], floors: Mapping[str, float]) -> Iterator[str]:
    """A sentence for each model below its floor, in the worst case over its cells of one threat model, and for each floor
    that matches no model.

    A pattern is matched against the names of the model and of the suite; every matching floor must hold. For a randomised
    model the worst case combines the majority verdicts of the cells, which is at most the leaderboard's robust accuracy.
    """
    rows: dict[tuple[str, ...], list[BaselineCell]] = {}
    for cell in cells:
        rows.setdefault((cell.model, cell.defense, cell.threat, cell.suite, cell.data), []).append(cell)
    for pattern, floor in floors.items():
        matching = [row for row in rows.values() if _matches(row[0], pattern)]
        if not matching:
            yield f"Floor {floor:g} of {pattern!r}: no model or suite of the run has such a name."
        for row in matching:
            if sentence := _below(row, floor):
                yield f"{row[0].model} × {row[0].defense} {row[0].threat}: {sentence}"


def _matches(cell: BaselineCell, pattern: str) -> bool:
    return fnmatchcase(cell.model, pattern) or fnmatchcase(cell.suite, pattern)


def _below(row: Sequence[BaselineCell], floor: float) -> str:
    bad = [cell for cell in row if cell.status != "ok"]
    if bad:
        return f"the floor {100 * floor:g} % cannot be checked: attack {bad[0].attack} failed or is not finished."
    if any(len(cell.robust) != cell.n for cell in row):
        return f"the floor {100 * floor:g} % needs every sample, and the gate stopped early: run without --gate-early."
    if len({cell.data_digest for cell in row}) > 1:
        return f"the floor {100 * floor:g} % cannot be checked: its attacks ran on different samples."
    worst = Proportion.of(np.logical_and.reduce([cell.robust for cell in row]))
    if worst.estimate >= floor:
        return ""
    low, high = worst.interval
    figure = f"{100 * worst.estimate:.1f} % [{100 * low:.1f}, {100 * high:.1f}] (n={worst.n})"
    return f"worst case {figure} is below the floor of {100 * floor:g} %."


def costs(pairs: CellPairs, computed: float | None = None) -> str:
    """A sentence on the costs of the compared cells, before and now; empty if there are none.

    `computed`: passes that a gate which stops early computed; the store answered the others.
    """
    if not pairs:
        return ""
    olds, news = zip(*pairs, strict=True)
    passes = [sum(map(_passes, cells)) for cells in (olds, news)]
    memory = [max(cell.peak_memory_mib for cell in cells) for cells in (olds, news)]
    seconds = [sum(cell.seconds for cell in cells) for cells in (olds, news)]
    now = "" if computed is None or computed == passes[1] else f" ({computed:,.0f} computed, the others stored)"
    return (
        f"Costs of the compared cells: {passes[0]:,.0f} → {passes[1]:,.0f} passes{now}, peak memory "
        f"{memory[0]:,.0f} → {memory[1]:,.0f} MiB, {seconds[0]:.1f} → {seconds[1]:.1f} s (time is not gated)."
    )


def _passes(cell: BaselineCell) -> float:
    return cell.forwards + cell.backwards
