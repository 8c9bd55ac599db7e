"""What shows that attacks work, sample by sample."""

from __future__ import annotations

from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.rows.evidence import CARRIED, DECISIONS, LAST, LEAST_QUERIES, TESTS, LastSearch


def last_search(finished):
    """The last samples of the search by decisions, in the order of the data; None if no cell has such a search."""
    if not any(DECISIONS in cells.techniques(result) for result in finished):
        return None
    tried = []
    by_decisions = set()
    by_others = set()
    for block in (block for result in finished for block in result.blocks):
        samples, by_stage = block.samples, block.cell.techniques
        searching = [stage for stage, technique in by_stage.items() if DECISIONS in technique]
        spent = (samples.forwards + samples.backwards).tolist()
        for row, name in enumerate(samples.id.tolist()):
            alone = {""} if spent[row] >= LEAST_QUERIES[DECISIONS] else set()
            faced = set(samples.faced[row].split()) if samples.faced else alone
            if faced.intersection(searching):
                tried.append(name)
        for row in (samples.correct & ~samples.robust).nonzero()[0].tolist():
            names = by_stage.get(samples.stage[row], "") if samples.stage else " ".join(by_stage.values())
            (by_decisions if DECISIONS in names else by_others).add(samples.id[row])
    last = [name for name in dict.fromkeys(tried) if name not in by_others][-LAST:]
    return LastSearch(len(last), len(by_decisions.intersection(last)))


def passed_tests(finished):
    """The tests that some attack of the row has passed, and `CARRIED` if a view of the pipeline fell and carried over."""
    figures = {name for result in finished for flag in _asking(result) for name, _ in flag.evidence}
    passed = {test for test in TESTS if any(name.startswith(f"{test}: ") for name in figures)}
    return frozenset(passed | ({CARRIED} if any(name.endswith(f": {CARRIED}") for name in figures) else set()))


def _asking(result):
    return tuple(flag for flag in cells.flags(result) if flag.name not in TESTS)
