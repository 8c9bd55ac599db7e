"""The verdict on each pair of comparable cells: by one test on all samples, or by a sequential test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.gate.baseline import BaselineCell, Test
from gauntlet.leaderboard.gate.curtailment import curtailed_verdict
from gauntlet.leaderboard.gate.policy import Policy
from gauntlet.leaderboard.gate.report import CellVerdict, GateVerdict
from gauntlet.leaderboard.gate.sequential_test import SequentialDecision, needed_more, sequential_decision
from gauntlet.leaderboard.gate.trace import Trace, sample_order
from gauntlet.leaderboard.stats.paired import drop_p_value, drop_upper, needed_n
from gauntlet.leaderboard.stats.proportions import holm

UNFINISHED = "The gate stopped before a verdict was certain: run the same command again to continue."


@dataclass(frozen=True, eq=False)
class ComparedCell:
    """A cell of the baseline and its partner in the run, with the same samples before and now, in the order of the test."""

    old: BaselineCell
    new: BaselineCell
    order: npt.NDArray[np.int64]
    before: npt.NDArray[np.bool_]
    now: npt.NDArray[np.bool_]
    trace: Trace | None = None

    @classmethod
    def of(cls, old: BaselineCell, new: BaselineCell, trace: Trace | None) -> ComparedCell:
        """The samples of the trace of a gate that stops early, or else all samples."""
        if trace is not None:
            return cls(old, new, trace.order, trace.before, trace.now, trace)
        order = sample_order(old)
        return cls(old, new, order, old.robust[order], new.robust[order])

    @property
    def title(self) -> str:
        """The title of the cell in the run, with its seed."""
        return title(self.old, self.new)

    @property
    def lost(self) -> int:
        """Number of samples that were robust before and are not now."""
        return int((self.before & ~self.now).sum())

    @property
    def gained(self) -> int:
        """Number of samples that are robust now and were not before."""
        return int((~self.before & self.now).sum())

    @property
    def open(self) -> tuple[int, int]:
        """Numbers of undecided samples that can still be lost, and that can still be gained."""
        undecided = np.ones(self.old.n, dtype=np.bool_)
        undecided[self.order] = False
        return int(self.old.robust[undecided].sum()), int((~self.old.robust[undecided]).sum())

    @property
    def same_weights(self) -> bool:
        """Whether the weights are the baseline's, so that nothing in the model explains a rise of robustness."""
        return bool(self.old.weights) and self.old.weights == self.new.weights


def fixed(cells: Sequence[ComparedCell], policy: Policy) -> list[CellVerdict]:
    """One exact test per cell on all samples, with Holm's correction over the cells.

    If a curtailed run left samples open, each figure assumes the least favourable outcome for them, so that it holds whatever
    they would have given.
    """
    opens = [cell.open for cell in cells]
    drops = [drop_p_value(cell.lost, cell.gained + may_gain) for cell, (_, may_gain) in zip(cells, opens, strict=True)]
    rises = [drop_p_value(cell.gained, cell.lost + may_lose) for cell, (may_lose, _) in zip(cells, opens, strict=True)]
    adjusted_drops, adjusted_rises = holm(drops), holm(rises)
    return [
        _fixed(cell, (drops[i], rises[i]), (float(adjusted_drops[i]), float(adjusted_rises[i])), len(cells), policy)
        for i, cell in enumerate(cells)
    ]


def _fixed(
    cell: ComparedCell, p_values: tuple[float, float], adjusted: tuple[float, float], tests: int, policy: Policy
) -> CellVerdict:
    """The verdict on one cell; p-values are those of a drop and of a rise."""
    lost, gained, n = cell.lost, cell.gained, cell.old.n
    may_lose, may_gain = cell.open
    curtailed = may_lose > 0 or may_gain > 0
    upper = drop_upper(lost + may_lose, gained, n, 1 - policy.alpha)
    drop_significant, rise_significant = (p < policy.alpha for p in adjusted)
    verdict: GateVerdict | None
    if curtailed:
        verdict = _curtailed(cell, policy, tests)
    elif drop_significant:
        verdict = "regressed"
    elif rise_significant and cell.same_weights:
        verdict = "suspicious"
    else:
        verdict = "held" if upper < policy.margin else "undecided"
    if verdict is None:
        return _unfinished(cell)
    before = (int(cell.before.sum()) + may_lose) / n
    now = (int(cell.now.sum()) + may_lose + may_gain) / n
    p_value, p_holm = (p_values[1], adjusted[1]) if verdict == "suspicious" else (p_values[0], adjusted[0])
    if curtailed:
        figures = (
            f"{100 * before:.1f} % → at most {100 * now:.1f} % (certain after {len(cell.order)} of {n} samples; {lost} lost, "
            f"{gained} gained; p≤{p_value:.2g}, Holm {p_holm:.2g})"
        )
    else:
        figures = (
            f"{100 * before:.1f} % → {100 * now:.1f} % (n={n}; {lost} lost, {gained} gained; drop "
            f"{100 * (before - now):.1f}, at most {100 * upper:.1f}; p={p_value:.2g}, Holm {p_holm:.2g})"
        )
    note = ""
    if verdict == "undecided":
        wanted = needed_n(lost, gained, n, margin=policy.margin, alpha=policy.alpha, tests=tests)
        note = f"about {wanted:,} samples would decide if flips continue at this rate"
    elif rise_significant and verdict != "suspicious":
        note = "improved"
    return _cell_verdict(cell, verdict, figures, note, p_value=p_holm, upper=upper, shares=(before, now))


def sequential(cells: Sequence[ComparedCell], policy: Policy, tests: int) -> list[CellVerdict]:
    """A test per cell that is valid whenever it stops, for `tests` cells in all (see `sequential_test`)."""
    return [_sequential(cell, policy, tests) for cell in cells]


def _sequential(cell: ComparedCell, policy: Policy, tests: int) -> CellVerdict:
    decision = _decision(cell, policy, tests)
    verdict: GateVerdict = decision.verdict or "undecided"
    if decision.verdict is None and any(cell.open):
        return _unfinished(cell)
    before, now = (float(bits[: decision.at].mean()) for bits in (cell.before, cell.now))
    e_value = decision.e_rise if verdict == "suspicious" else decision.e_drop
    figures = (
        f"{100 * before:.1f} % → {100 * now:.1f} % ({'not decided' if decision.verdict is None else 'decided'} after "
        f"{decision.at} of {cell.old.n} samples; {decision.lost} lost, {decision.gained} gained; drop "
        f"{100 * (before - now):.1f}, at most {100 * decision.upper:.1f}; e={e_value:.3g} of {tests / policy.alpha:.3g})"
    )
    note = ""
    if decision.verdict is None:
        wanted = needed_more(
            cell.lost,
            cell.gained,
            len(cell.order),
            margin=policy.margin,
            alpha=policy.alpha,
            both_ways=cell.same_weights,
        )
        note = f"about {wanted:,} more samples would decide if none of them flips"
    p_value = min(1.0, tests / e_value) if e_value else 1.0
    return _cell_verdict(cell, verdict, figures, note, p_value=p_value, upper=decision.upper, shares=(before, now))


def _unfinished(cell: ComparedCell) -> CellVerdict:
    return CellVerdict(cell.title, "incomparable", UNFINISHED, key=cell.new.key)


def _cell_verdict(
    cell: ComparedCell,
    verdict: GateVerdict,
    figures: str,
    note: str,
    *,
    p_value: float,
    upper: float,
    shares: tuple[float, float],
) -> CellVerdict:
    return CellVerdict(
        cell.title,
        verdict,
        "; ".join([figures, *_notes(cell, verdict, note)]),
        lost=cell.lost,
        gained=cell.gained,
        n=len(cell.order),
        p_value=p_value,
        upper=upper,
        baseline_robust=shares[0],
        robust=shares[1],
        key=cell.new.key,
        lost_at=tuple(sorted(int(at) for at in cell.order[cell.before & ~cell.now])),
    )


def _notes(cell: ComparedCell, verdict: GateVerdict, note: str) -> list[str]:
    old, new, trace = cell.old, cell.new, cell.trace
    notes = []
    if verdict == "suspicious":
        notes.append(
            "robustness rose although the weights are the baseline's: check for a weaker attack, or accept anew"
        )
    if note:
        notes.append(note)
    if old.spec != new.spec:
        notes.append("the attack's settings are not the baseline's")
    if old.seed != new.seed:
        notes.append(f"the baseline's seed was {old.seed}")
    if old.randomised or new.randomised:
        notes.append("randomised: outcomes are majority verdicts over fresh draws")
    if trace is not None and trace.replay:
        notes.append(trace.replay)
    if trace is not None and trace.excused:
        notes.append(f"{trace.excused} more were broken by examples that break the baseline's model too")
    return notes


def is_certain(cell: ComparedCell, policy: Policy, test: Test, tests: int) -> bool:
    """Whether the verdict is certain whatever the undecided samples would give. `tests`: number of cells of the baseline."""
    if not any(cell.open):
        return True
    if test == "sequential":
        return _decision(cell, policy, tests).verdict is not None
    return _curtailed(cell, policy, tests) is not None


def _curtailed(cell: ComparedCell, policy: Policy, tests: int) -> GateVerdict | None:
    return curtailed_verdict(
        cell.lost,
        cell.gained,
        *cell.open,
        cell.old.n,
        margin=policy.margin,
        alpha=policy.alpha,
        tests=tests,
        both_ways=cell.same_weights,
    )


def _decision(cell: ComparedCell, policy: Policy, tests: int) -> SequentialDecision:
    differences = cell.before.astype(np.int64) - cell.now.astype(np.int64)
    return sequential_decision(
        differences, margin=policy.margin, alpha=policy.alpha, tests=tests, both_ways=cell.same_weights
    )


def title(old: BaselineCell | None, new: BaselineCell | None) -> str:
    """The title of the cell in the run, or else in the baseline, with its seed."""
    cell = new or old
    return f"{cell.title}, seed {cell.seed}" if cell else ""
