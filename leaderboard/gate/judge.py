"""The gate: did a change lose robustness? A paired verdict for each cell, with known error rates.

*regressed*: the one-sided exact McNemar test finds a drop, with Holm's correction over the cells that are compared. The
chance that any cell without a drop is called regressed is at most alpha. It takes precedence over all other verdicts.

*held*: the one-sided upper bound of the drop (`paired.drop_upper`: Tango's score method, never below the exact bound for
one-way flips; confidence 1 - alpha) is below the margin. Each cell is judged at level alpha without a correction, because the
gate passes only where *every* cell is held: if some cell dropped by the margin or more, the chance to pass is at most that of
calling this one cell held, which is alpha (an intersection-union test: Berger, Technometrics 24, 1982). That level is
approximate where flips are many: exact enumeration gives at most 5.1 % at alpha 5 % and a margin of 2 points.

*suspicious*: a significant rise (the same test the other way round, Holm over the cells) though the weights are the
baseline's: a weaker attack looks like a stronger model. With other weights a rise is reported as an improvement.

A baseline may ask for a *sequential* test instead (`gate_verdicts.sequential`): it promises the same, stops as soon as the
evidence suffices, and needs more samples where it does not stop early.

*undecided*: none of these; where such cells may pass, nothing is promised of them. *incomparable*: other data, samples or
threat model, a cell that is missing on either side, has failed or is not finished. A gate that compared nothing does not pass.

Bits of a randomised model are majority verdicts over fresh draws, one for each sample: the tests say whether these changed.
Between two runs of the same model they flip either way equally often, so that false alarms stay below alpha.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gauntlet.leaderboard.gate.baseline import Baseline, BaselineCell, Key
from gauntlet.leaderboard.gate.limits import below_floors, costs, over_budget
from gauntlet.leaderboard.gate.policy import Policy
from gauntlet.leaderboard.gate.report import CellVerdict, GateReport, Verdict
from gauntlet.leaderboard.gate.trace import Trace
from gauntlet.leaderboard.gate.verdicts import Pair, fixed, sequential, title

__all__ = ["CellVerdict", "GateReport", "Policy", "Verdict", "judge"]


def judge(baseline: Baseline, current: Baseline, policy: Policy, traces: Sequence[Trace] = ()) -> GateReport:
    """Compare a run with its baseline, cell by cell; nothing is run or read.

    `traces`: of cells of which a gate that stops early attacked no more samples than it needed. They are judged in place of
    the run's cells of the same keys, by the same test.

    Cells are matched by their key; where that leaves one over on either side that differs in the seed alone, they are
    compared too, because the question is about the model and not about a seed.
    """
    known = {trace.key: trace for trace in traces}
    cells = [known[cell.key].cell if cell.key in known else cell for cell in current.cells]
    pairs = _pairs(baseline.cells, cells)
    obstacles = [obstacle(old, new) for old, new in pairs]
    compared = [
        Pair.of(old, new, known.get(new.key))
        for (old, new), why in zip(pairs, obstacles, strict=True)
        if old is not None and new is not None and not why
    ]
    # Beforehand it is known only how many cells the baseline has.
    judged = iter(
        sequential(compared, policy, len(baseline.cells)) if baseline.test == "sequential" else fixed(compared, policy)
    )
    verdicts = [
        CellVerdict(title(old, new), "incomparable", why, key=new.key if new else None) if why else next(judged)
        for (old, new), why in zip(pairs, obstacles, strict=True)
    ]
    if not pairs:
        verdicts.append(CellVerdict("all cells", "incomparable", "Neither the baseline nor the run has a cell."))
    paid = [(pair.old, pair.new) for pair in compared]
    problems = (
        *over_budget(paid, policy.max_passes_ratio, policy.max_memory_ratio),
        *below_floors(cells, policy.floors),
    )
    fine = {"held", "undecided"} if policy.allow_undecided else {"held"}
    passed = not problems and all(verdict.verdict in fine for verdict in verdicts)
    computed = sum(trace.computed for trace in traces) if traces else None
    return GateReport(tuple(verdicts), problems, passed, costs(paid, computed))


def partners(old: Sequence[Key], new: Sequence[Key]) -> dict[Key, Key]:
    """For cells of the baseline that have one, the partner in the run: the one of the same key, else the only one left that
    differs in the seed, else in the data or threat model (which `obstacle` names)."""
    found: dict[Key, Key] = {}
    left = list(new)
    for length in (7, 6, 3):
        waiting = Counter(key[:length] for key in old if key not in found)
        offered = Counter(key[:length] for key in left)
        single = {part for part, count in waiting.items() if count == offered[part] == 1}
        taken = {key[:length]: key for key in left if key[:length] in single}
        found |= {key: taken[key[:length]] for key in old if key not in found and key[:length] in single}
        left = [key for key in left if key[:length] not in single]
    return found


_Pair = tuple[BaselineCell | None, BaselineCell | None]


def _pairs(old: Sequence[BaselineCell], new: Sequence[BaselineCell]) -> list[_Pair]:
    found = partners([cell.key for cell in old], [cell.key for cell in new])
    cells, taken = {cell.key: cell for cell in new}, set(found.values())
    return [
        *((cell, cells[found[cell.key]] if cell.key in found else None) for cell in old),
        *((None, cell) for cell in new if cell.key not in taken),
    ]


def obstacle(old: BaselineCell | None, new: BaselineCell | None) -> str:
    """Why the two cannot be compared, a sentence; empty where they can."""
    if old is None:
        return "The baseline lacks this cell: accept a new baseline that has it."
    if new is None:
        return "The run lacks this cell: run what the baseline ran, or accept a new baseline without it."
    for name, cell in (("the baseline", old), ("the run", new)):
        if cell.status == "error":
            return f"The cell failed in {name} ({cell.error}): run it again."
        if cell.status != "ok" or not cell.n:
            return f"The cell is not finished in {name} ({cell.n} samples): run it again."
        if not cell.data_digest:
            return (
                f"What images {name} was made on is not recorded: run it again with --fresh into another --out folder."
            )
    names = {"threat": "threat model", "suite": "suite", "data": "data", "n": "number of samples"}
    other = [
        f"{text} {getattr(old, name)} → {getattr(new, name)}"
        for name, text in names.items()
        if getattr(old, name) != getattr(new, name)
    ]
    if not other and old.data_digest != new.data_digest:
        other = ["images, labels, or sample ids and their order"]
    return (
        f"Not the same question: other {', '.join(other)}. Run what the baseline ran, or accept anew." if other else ""
    )
