"""What answers a flag: techniques that every sample of a row which still stands has faced, and evidence that its attacks work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gauntlet.leaderboard.results.record import EVIDENCE, Flag
from gauntlet.leaderboard.results.sample_set import numbered
from gauntlet.leaderboard.results.summary import ANY_PASS, AnyResult, Bits, CellSummary, summaries
from gauntlet.leaderboard.rows.evidence import (
    CARRIED,
    DECISIONS,
    LEAST_QUERIES,
    OVERSTATED,
    PLANTED,
    LastSearch,
    last_search,
    passed_tests,
)
from gauntlet.leaderboard.rows.worst_case import WorstCase


@dataclass(frozen=True)
class Answers:
    """`needs`: what flags may need and the row has. `kinds`: of evidence. `search`: the last search by decisions, if any."""

    needs: frozenset[str]
    kinds: tuple[str, ...] = ()
    search: LastSearch | None = None


def answers(results: Sequence[AnyResult], worst: WorstCase) -> Answers:
    """What the finished cells of a row answer.

    Techniques: those that every sample that stands in the worst case has faced, in some cell. That a cascade has a stage is no
    evidence: conditions of stages may keep most samples from it. If nothing stands, they are the techniques of all stages. Search
    by decisions answers only where it was quiet at its end: a search that still finds examples would find more. Where planted
    examples show that the attack works, it is sufficient that this would lower the figure by little.

    Evidence: some attack of the row found what was planted, or a view of the pipeline fell and carried over; or, since nothing
    could be planted, search by decisions was quiet. If nothing stands there is nothing to show. A test that some attack of the
    row passed answers the flag of another one that failed it: the row's figure is no higher than that of its strongest attack.
    """
    finished = [result for result in summaries(results) if result.status == "ok" and result.cell.adversarial]
    standing = int(worst.robust.sum())
    answered = _faced_by_all(finished, worst)
    search, tests = last_search(finished), passed_tests(finished)
    if standing and search is not None and not search.quiet:
        little = search.overstates(standing / len(worst.robust)) <= OVERSTATED
        if PLANTED not in tests or not little:
            answered -= {DECISIONS}
    kinds = [kind for kind in (PLANTED, CARRIED) if kind in tests]
    if not kinds and DECISIONS in answered:
        kinds = [DECISIONS]
    shown = {EVIDENCE} if kinds or (finished and not standing) else set()
    return Answers(answered | tests | shown, tuple(kinds), search if DECISIONS in answered else None)


def lift(flags: Sequence[Flag], found: Answers) -> tuple[Flag, ...]:
    """The flags, those that block no longer with what answered them in `lifted_by`, and the figures of the last search."""
    return tuple(_lifted(flag, found) if not flag.stands(found.needs) else flag for flag in flags)


def _lifted(flag: Flag, found: Answers) -> Flag:
    if flag.severity != "block":
        return flag
    kinds = found.kinds if EVIDENCE in flag.needs else ()
    lifted_by = tuple(dict.fromkeys([*(name for name in flag.needs if name != EVIDENCE), *kinds]))
    searched = found.search is not None and DECISIONS in lifted_by
    figures = found.search.figures if searched and found.search is not None else ()
    return replace(flag, lifted_by=lifted_by, evidence=(*flag.evidence, *figures))


def _faced_by_all(finished: Sequence[CellSummary], worst: WorstCase) -> frozenset[str]:
    """The techniques that every sample which stands in the worst case has faced, in some cell."""
    count, (own, *numbers) = numbered([worst.samples, *(result.samples for result in finished)])
    standing = own[worst.robust]
    faced: dict[str, Bits] = {
        name: np.zeros(count, np.bool_) for name in sorted({name for result in finished for name in result.techniques})
    }
    for result, number in zip(finished, numbers, strict=True):
        for name in result.techniques:
            faced[name][number[_facing(result, name)]] = True
    return frozenset(name for name, bits in faced.items() if bits[standing].all())


def _facing(result: CellSummary, technique: str) -> Bits:
    """The samples that faced a technique of the cell. An attack without stages faces samples on which it spends passes: a
    search as many as `LEAST_QUERIES`, other techniques any.

    A sample of a randomised model may stand by the draws that score it although a stage broke it: it counts as if it had faced
    the stages after that one too, since no attack could have gone on.
    """
    if result.faced is None:
        return result.took(LEAST_QUERIES.get(technique, 1))
    having = {label for label, names in result.stage_techniques.items() if technique in names.split("+")}
    facing = result.faced.where(lambda labels: not having.isdisjoint(labels.split()))
    if result.stage is None:
        return facing
    return np.where(result.stage.where(bool), result.took(ANY_PASS), facing)
