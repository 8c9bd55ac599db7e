"""The gate: a paired verdict for each cell on whether robustness was lost, with known error rates.

*regressed*: the one-sided exact McNemar test finds a drop, with Holm's correction over the compared cells. The chance that any
cell without a drop is called regressed is at most alpha. Takes precedence over all other verdicts.

*held*: the one-sided upper bound of the drop (`paired.drop_upper`: Tango's score method, never below the exact bound for one-way
flips; confidence 1 - alpha) is below the margin. Each cell is judged at level alpha without a correction, because the gate passes
only if *every* cell is held: if some cell dropped by the margin or more, the chance to pass is at most that of calling this one
cell held, which is alpha (an intersection-union test: Berger, Technometrics 24, 1982). That level is approximate if samples
are few or flips many: exact enumeration gives at most 5.4 % at alpha 5 % and a margin of 2 points (docs/ci.md has other margins).

*suspicious*: a significant rise (the same test in the other direction, Holm over the cells) although the weights are the
baseline's, or a larger share of what stands has masked gradients: a weaker attack looks like a stronger model. Otherwise a rise
with other weights is reported as an improvement.

*masked*: a flag blocks the rank of the cell's row that does not block it in the baseline. The attack's figure cannot be trusted
then, whatever it is, so that this verdict stands in place of the others. A baseline that does not record flags has none.

A baseline may ask for a *sequential* test instead (`verdicts.sequential`): it has the same error rates, stops as soon as the
evidence suffices, and needs more samples if it does not stop early.

*undecided*: none of these; if such cells may pass, the error rates do not hold for them. *incomparable*: different data, samples
or threat model, or a cell that is missing on either side, has failed or is not finished. A gate that compared nothing does not
pass.

Outcomes of a randomised model are majority verdicts over fresh draws, one per sample: the tests are about changes of these.
Between two runs of the same model they flip either way equally often, so that false alarms stay below alpha.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from gauntlet.leaderboard.gate.baseline import Baseline, BaselineCell, Key
from gauntlet.leaderboard.gate.compared_cell import ComparedCell, title
from gauntlet.leaderboard.gate.limits import below_floors, costs, over_budget
from gauntlet.leaderboard.gate.policy import Policy
from gauntlet.leaderboard.gate.report import CellVerdict, GateReport
from gauntlet.leaderboard.gate.trace import Trace
from gauntlet.leaderboard.gate.verdicts import fixed, sequential


def judge(baseline: Baseline, current: Baseline, policy: Policy, traces: Sequence[Trace] = ()) -> GateReport:
    """Compare a run with its baseline, cell by cell; nothing is run or read.

    `traces`: the samples that a gate which stops early compared, for some cells. They are judged in place of the run's cells
    with the same keys, by the same test.

    Cells are matched by their keys. A single remaining cell on either side that differs in the seed alone is compared too,
    because the gate is about the model and not about a seed.
    """
    trace_of = {trace.key: trace for trace in traces}
    cells = [_traced(cell, trace_of[cell.key]) if cell.key in trace_of else cell for cell in current.cells]
    pairs = _pairs(baseline.cells, cells)
    obstacles = [obstacle(old, new) for old, new in pairs]
    compared = [
        ComparedCell.of(old, new, trace_of.get(new.key))
        for (old, new), reason in zip(pairs, obstacles, strict=True)
        if old is not None and new is not None and not reason
    ]
    # A sequential test must fix the number of tests before any of them runs: the number of cells of the baseline.
    judged = iter(
        sequential(compared, policy, len(baseline.cells)) if baseline.test == "sequential" else fixed(compared, policy)
    )
    verdicts = [
        CellVerdict(title(old, new), "incomparable", reason, key=new.key if new else None) if reason else next(judged)
        for (old, new), reason in zip(pairs, obstacles, strict=True)
    ]
    if not pairs:
        verdicts.append(CellVerdict("all cells", "incomparable", "Neither the baseline nor the run has a cell."))
    compared_pairs = [(cell.old, cell.new) for cell in compared]
    problems = (
        *over_budget(compared_pairs, policy.max_passes_ratio, policy.max_memory_ratio),
        *below_floors(cells, policy.floors),
    )
    passing = {"held", "undecided"} if policy.allow_undecided else {"held"}
    passed = not problems and all(verdict.verdict in passing for verdict in verdicts)
    computed = sum(trace.computed for trace in traces) if traces else None
    return GateReport(tuple(verdicts), problems, passed, costs(compared_pairs, computed), policy.rule)


def partners(old: Sequence[Key], new: Sequence[Key]) -> dict[Key, Key]:
    """The partner in the run of each cell of the baseline that has one: the cell with the same key, else the only remaining
    cell that differs in the seed, else in data or threat model (`obstacle` then names the difference)."""
    partner: dict[Key, Key] = {}
    remaining = list(new)
    for length in (7, 6, 3):
        unmatched = Counter(key[:length] for key in old if key not in partner)
        available = Counter(key[:length] for key in remaining)
        unique = {part for part, count in unmatched.items() if count == available[part] == 1}
        matching = {key[:length]: key for key in remaining if key[:length] in unique}
        partner |= {key: matching[key[:length]] for key in old if key not in partner and key[:length] in unique}
        remaining = [key for key in remaining if key[:length] not in unique]
    return partner


def _traced(cell: BaselineCell, trace: Trace) -> BaselineCell:
    """The cell of the trace, with the flags of the run's."""
    return replace(trace.cell, blocks=cell.blocks, lifted=cell.lifted)


_CellPair = tuple[BaselineCell | None, BaselineCell | None]


def _pairs(old: Sequence[BaselineCell], new: Sequence[BaselineCell]) -> list[_CellPair]:
    partner = partners([cell.key for cell in old], [cell.key for cell in new])
    cells, taken = {cell.key: cell for cell in new}, set(partner.values())
    return [
        *((cell, cells[partner[cell.key]] if cell.key in partner else None) for cell in old),
        *((None, cell) for cell in new if cell.key not in taken),
    ]


def obstacle(old: BaselineCell | None, new: BaselineCell | None) -> str:
    """The reason why the two cannot be compared, as a sentence; empty if they can."""
    if old is None:
        return "The baseline lacks this cell: accept a new baseline that has it."
    if new is None:
        return "The run lacks this cell: run it as the baseline did, or accept a new baseline without it."
    for name, cell in (("the baseline", old), ("the run", new)):
        if cell.status == "error":
            return f"The cell failed in {name} ({cell.error}): run it again."
        if cell.status != "ok" or not cell.n:
            return f"The cell is not finished in {name} ({cell.n} samples): run it again."
        if not cell.data_digest:
            return f"The images of {name} are not recorded: run it again with --fresh into another --out folder."
    names = {"threat": "threat model", "suite": "suite", "data": "data", "n": "number of samples"}
    differences = [
        f"{text} {getattr(old, name)} → {getattr(new, name)}"
        for name, text in names.items()
        if getattr(old, name) != getattr(new, name)
    ]
    if not differences and old.data_digest != new.data_digest:
        differences = ["images, labels, or sample ids and their order"]
    if not differences:
        return ""
    return (
        f"Not comparable: other {', '.join(differences)}. Run the cell as the baseline did, or accept a new baseline."
    )
