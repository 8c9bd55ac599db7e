"""The techniques that answer a flag: those that every sample of a row which still stands has faced."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CellResult, Flag, Record
from gauntlet.leaderboard.rows.worst_case import WorstCase

DECISIONS = "decision-based"


def answered_by(results: Sequence[CellResult], worst: WorstCase) -> frozenset[str]:
    """The attack techniques that every sample that stands in the worst case has faced, in some finished cell of the row.

    That a cascade has a stage is no evidence: conditions of stages may keep most samples from it. If nothing stands, they are the
    techniques of all stages. Search by decisions answers only where it broke nothing that everything else had left: a search that
    still finds examples at the end of its budget would find more.
    """
    finished = [result for result in results if cells.status(result) == "ok" and result.cell.adversarial]
    every = frozenset(name for result in finished for name in cells.techniques(result))
    faced: dict[str, set[str]] = {}
    for result in finished:
        for block in result.blocks:
            for sample, techniques in _faced(block):
                faced.setdefault(sample, set()).update(techniques)
    standing = worst.id[worst.robust].tolist()
    answered = every.intersection(*(faced.get(sample, set()) for sample in standing))
    return answered - {DECISIONS} if standing and _still_finds(finished) else answered


def lift(flags: Sequence[Flag], answered: Collection[str]) -> tuple[Flag, ...]:
    """The flags, those that block no longer with the techniques that answered them in `lifted_by`."""
    return tuple(
        replace(flag, lifted_by=flag.needs) if flag.severity == "block" and not flag.stands(answered) else flag
        for flag in flags
    )


def _still_finds(finished: Sequence[CellResult]) -> bool:
    """Whether search by decisions broke a sample that nothing else broke."""
    by_decisions: set[str] = set()
    by_others: set[str] = set()
    for block in (block for result in finished for block in result.blocks):
        samples, by_stage = block.samples, block.cell.techniques
        for row in (samples.correct & ~samples.robust).nonzero()[0].tolist():
            names = by_stage.get(samples.stage[row], "") if samples.stage else " ".join(by_stage.values())
            (by_decisions if DECISIONS in names else by_others).add(samples.id[row])
    return bool(by_decisions - by_others)


def _faced(block: Record) -> Iterator[tuple[str, set[str]]]:
    """The techniques that each sample of a block faced. An attack without stages faces samples on which it spends passes.

    A sample of a randomised model may stand by the draws that score it although a stage broke it: it counts as if it had faced
    the stages after that one too, since no attack could have gone on.
    """
    samples, by_stage = block.samples, block.cell.techniques
    whole = set().union(*(technique.split("+") for technique in by_stage.values()))
    spent = (samples.forwards + samples.backwards).tolist()
    for row, name in enumerate(samples.id.tolist()):
        if not samples.faced or (samples.stage and samples.stage[row]):
            yield name, whole if spent[row] else set()
        else:
            stages = samples.faced[row].split()
            yield name, set().union(*(by_stage.get(stage, "").split("+") for stage in stages))
