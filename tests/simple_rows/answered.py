"""What answers flags, sample by sample."""

from __future__ import annotations

from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import EVIDENCE
from gauntlet.leaderboard.rows.answered import Answers
from gauntlet.leaderboard.rows.evidence import CARRIED, DECISIONS, LEAST_QUERIES, OVERSTATED, PLANTED
from simple_rows.evidence import last_search, passed_tests


def answers(results, worst):
    """What the finished cells of a row answer.

    Techniques: those that every sample that stands in the worst case has faced, in some cell. That a cascade has a stage is no
    evidence: conditions of stages may keep most samples from it. If nothing stands, they are the techniques of all stages. Search
    by decisions answers only where it was quiet at its end: a search that still finds examples would find more. Where planted
    examples show that the attack works, it is sufficient that this would lower the figure by little.

    Evidence: some attack of the row found what was planted, or a view of the pipeline fell and carried over; or, since nothing
    could be planted, search by decisions was quiet. If nothing stands there is nothing to show. A test that some attack of the
    row passed answers the flag of another one that failed it: the row's figure is no higher than that of its strongest attack.
    """
    finished = [result for result in results if cells.status(result) == "ok" and result.cell.adversarial]
    every = frozenset(name for result in finished for name in cells.techniques(result))
    faced = {}
    for result in finished:
        for block in result.blocks:
            for sample, techniques in _faced(block):
                faced.setdefault(sample, set()).update(techniques)
    standing = worst.id[worst.robust].tolist()
    answered = every.intersection(*(faced.get(sample, set()) for sample in standing))
    search, tests = last_search(finished), passed_tests(finished)
    if standing and search is not None and not search.quiet:
        little = search.overstates(len(standing) / len(worst.robust)) <= OVERSTATED
        if PLANTED not in tests or not little:
            answered -= {DECISIONS}
    kinds = [kind for kind in (PLANTED, CARRIED) if kind in tests]
    if not kinds and DECISIONS in answered:
        kinds = [DECISIONS]
    shown = {EVIDENCE} if kinds or (finished and not standing) else set()
    return Answers(answered | tests | shown, tuple(kinds), search if DECISIONS in answered else None)


def _faced(block):
    """The techniques that each sample of a block faced. An attack without stages faces samples on which it spends passes:
    a search as many as `LEAST_QUERIES`, other techniques any.

    A sample of a randomised model may stand by the draws that score it although a stage broke it: it counts as if it had faced
    the stages after that one too, since no attack could have gone on.
    """
    samples, by_stage = block.samples, block.cell.techniques
    whole = set().union(*(technique.split("+") for technique in by_stage.values()))
    spent = (samples.forwards + samples.backwards).tolist()
    for row, name in enumerate(samples.id.tolist()):
        if not samples.faced:
            yield name, {technique for technique in whole if spent[row] >= LEAST_QUERIES.get(technique, 1)}
        elif samples.stage and samples.stage[row]:
            yield name, whole if spent[row] else set()
        else:
            stages = samples.faced[row].split()
            yield name, set().union(*(by_stage.get(stage, "").split("+") for stage in stages))
