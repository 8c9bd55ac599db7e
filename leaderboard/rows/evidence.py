"""What shows that the attacks of a row work on its pipeline: figures of tests in the flags of cells, and a quiet last search.

The tests run attacks and belong to bench; their figures are in the flags, each as `test: figure`. A search by decisions shows by
its outcomes that it has found what it can find: it broke none of the last hundred samples that everything else had left standing,
or none of all of them, if they are fewer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.results.sample_set import numbered
from gauntlet.leaderboard.results.summary import Bits, CellSummary
from gauntlet.leaderboard.stats.proportions import Proportion

DECISIONS = "decision-based"
UNBOUNDED, PLANTED, NOISE, CARRIED = "unbounded-attack", "planted-example", "random-noise", "carried over"
TESTS = (UNBOUNDED, PLANTED, NOISE)
"""The tests of an attack, each the name of the flag that it raises if it fails."""
LAST = 100
"""Number of samples that a search by decisions has to leave without a success."""
LEAST_QUERIES: Mapping[str, int] = MappingProxyType({"black-box": 300, DECISIONS: 1000})
"""Passes on a sample below which a search that is an attack of its own is a probe, and answers nothing."""


OVERSTATED = 0.03
"""Share of all samples that a search may still break, at 95 %, where planted examples show that the attack works."""


@dataclass(frozen=True)
class LastSearch:
    """The last samples that a search by decisions faced, and that everything else had left standing."""

    tried: int
    broken: int

    @property
    def quiet(self) -> bool:
        """Whether it found nothing."""
        return self.broken == 0

    def overstates(self, standing: float) -> float:
        """By how much a share of `standing` samples is too high if the rest breaks like the last samples, at most (95 %)."""
        return standing * Proportion(self.broken, self.tried).interval[1] if self.tried else 0.0

    @property
    def figures(self) -> tuple[tuple[str, float], ...]:
        """The figures as evidence of a flag."""
        return (f"{DECISIONS}: tried", float(self.tried)), (f"{DECISIONS}: broken", float(self.broken))


def last_search(finished: Sequence[CellSummary]) -> LastSearch | None:
    """The last samples of the search by decisions, in the order of the data; None if no cell has such a search."""
    if not any(DECISIONS in result.techniques for result in finished):
        return None
    count, numbers = numbered([result.samples for result in finished])
    by_decisions, by_others = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    tried = np.concatenate([number[_searched_by_decisions(r)] for r, number in zip(finished, numbers, strict=True)])
    for result, number in zip(finished, numbers, strict=True):
        broken, decisive = result.correct & ~result.recorded, _broken_by_decisions(result)
        by_decisions[number[broken & decisive]] = True
        by_others[number[broken & ~decisive]] = True
    order = np.sort(np.unique(tried, return_index=True)[1])
    last = [number for number in tried[order].tolist() if not by_others[number]][-LAST:]
    return LastSearch(len(last), int(by_decisions[last].sum()))


def _searched_by_decisions(result: CellSummary) -> Bits:
    """The samples that a search by decisions of the cell tried."""
    searching = {stage for stage, technique in result.stage_techniques.items() if DECISIONS in technique}
    if result.faced is not None:
        return result.faced.where(lambda labels: not searching.isdisjoint(labels.split()))
    return result.took(LEAST_QUERIES[DECISIONS]) if "" in searching else np.zeros(len(result), np.bool_)


def _broken_by_decisions(result: CellSummary) -> Bits:
    """For each sample whether what broke it, if anything did, is a search by decisions."""
    by_stage = result.stage_techniques
    if result.stage is not None:
        return result.stage.where(lambda label: DECISIONS in by_stage.get(label, ""))
    return np.full(len(result), DECISIONS in " ".join(by_stage.values()))


def passed_tests(finished: Sequence[CellSummary]) -> frozenset[str]:
    """The tests that some attack of the row has passed, and `CARRIED` if a view of the pipeline fell and carried over."""
    figures = {name for result in finished for flag in _asking(result) for name, _ in flag.evidence}
    passed = {test for test in TESTS if any(name.startswith(f"{test}: ") for name in figures)}
    return frozenset(passed | ({CARRIED} if any(name.endswith(f": {CARRIED}") for name in figures) else set()))


def describe_evidence(flag: Flag) -> str:
    """The figures of a flag's evidence in words; empty if it has none."""
    figures: dict[str, dict[str, int]] = {}
    for name, value in flag.evidence:
        test, colon, figure = name.rpartition(": ")
        if colon:
            figures.setdefault(test, {})[figure] = round(value)
    parts = []
    for test, found in sorted(figures.items(), key=lambda entry: entry[0] != PLANTED):
        if test == PLANTED:
            parts.append(
                f"the attack finds {found['planted'] - found['missed']} of {found['planted']} planted examples"
            )
        elif test == UNBOUNDED:
            parts.append(f"the attack breaks {found['samples']} of {found['samples']} samples in the whole box")
        elif test == NOISE:
            parts.append(
                f"{found['draws']:,} random points around each of {found['standing']} samples break none that it left"
                if found["standing"]
                else f"the attack leaves none of the first samples to {found['draws']:,} random points"
            )
        elif test == DECISIONS:
            parts.append(_searched(LastSearch(found["tried"], found["broken"])))
        elif CARRIED in found:
            view = "the undefended twin" if test == "twin" else f"the view {test}"
            parts.append(
                f"{view} falls ({found['standing']} of {found['samples']} samples stand) and {found[CARRIED]} of "
                f"{found['examples']} of its examples break the pipeline"
            )
    return ", ".join(parts)


def describe_lifted(flag: Flag) -> str:
    """A sentence on what lifted a block: attacks that every standing sample faced, and the evidence that they work."""
    tried = [name for name in flag.lifted_by if name in flag.needs and name not in TESTS]
    faced = (
        f"every sample that stands faced attacks by {', '.join(tried)}" if tried else "another attack passed this test"
    )
    shown = describe_evidence(flag)
    return f"{faced}; {shown}" if shown else faced


def _searched(search: LastSearch) -> str:
    if not search.tried:
        return "nothing was left to a search by predicted classes"
    most = Proportion(search.broken, search.tried).interval[1]
    return (
        f"search by predicted classes breaks {search.broken} of the last {search.tried} samples that stood "
        f"(95 %: at most {100 * most:.0f} % of such samples)"
    )


def _asking(result: CellSummary) -> tuple[Flag, ...]:
    return tuple(flag for flag in result.flags if flag.name not in TESTS)
