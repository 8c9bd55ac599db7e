"""The verdict on each pair of comparable cells: by one test on all samples, or by a sequential test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.gate.baseline import BaselineCell, Test
from gauntlet.leaderboard.gate.curtailment import curtailed_verdict
from gauntlet.leaderboard.gate.policy import Policy
from gauntlet.leaderboard.gate.report import CellVerdict, GateVerdict
from gauntlet.leaderboard.gate.sequential_test import SequentialDecision, needed_more, sequential_decision
from gauntlet.leaderboard.gate.trace import Trace, sample_order
from gauntlet.leaderboard.rows.crosschecks import MIN_SAMPLES, MIN_SHARE
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

    def first(self, count: int) -> ComparedCell:
        """The same cell with the first `count` samples alone."""
        return replace(self, order=self.order[:count], before=self.before[:count], now=self.now[:count])

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
    def excused(self) -> int:
        """Number of samples that the baseline counts as robust, and that a new example breaks on the baseline's model too."""
        return int((self.old.robust[self.order] & ~self.before).sum())

    @property
    def accepted(self) -> float:
        """The robust accuracy of the baseline on all samples, a share."""
        return float(self.old.robust.mean())

    @property
    def same_weights(self) -> bool:
        """Whether the weights are the baseline's, so that nothing in the model explains a rise of robustness."""
        return bool(self.old.weights) and self.old.weights == self.new.weights

    @property
    def more_masked(self) -> int:
        """How many more samples stand with masked gradients; 0 if no more than occur on sound models, or if it is not known."""
        if self.old.masked is None or self.new.masked is None:
            return 0
        more = self.new.masked - self.old.masked
        return more if more >= MIN_SAMPLES and more > MIN_SHARE * self.old.n else 0

    @property
    def doubts_rise(self) -> bool:
        """Whether a rise of robustness is suspicious: the weights are the baseline's, or more samples have masked gradients."""
        return self.same_weights or self.more_masked > 0

    @property
    def new_blocks(self) -> Mapping[str, str]:
        """The flags, with their sentences, that block the row now and did not in the baseline.

        A gate that stops early does not run cells that it does not judge, such as replays, which may have answered a flag of the
        baseline: it does not count such a flag as new.
        """
        known = {*(self.old.blocks or ()), *(self.old.lifted if self.trace is not None else ())}
        return {name: text for name, text in (self.new.blocks or {}).items() if name not in known}


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
    elif rise_significant and cell.doubts_rise:
        verdict = "suspicious"
    else:
        verdict = "held" if upper < policy.margin else "undecided"
    if verdict is None:
        return _unfinished(cell)
    p_value, p_holm = (p_values[1], adjusted[1]) if verdict == "suspicious" else (p_values[0], adjusted[0])
    if curtailed:
        most = (int(cell.now.sum()) + may_lose + may_gain) / n
        figures = (
            f"certain after {len(cell.order)} of {n} samples; {lost} lost, {gained} gained; on all samples now at most "
            f"{100 * most:.1f} %; p≤{p_value:.2g}, Holm {p_holm:.2g}"
        )
    else:
        figures = (
            f"n={n}; {lost} lost, {gained} gained; drop {100 * (lost - gained) / n:.1f}, at most {100 * upper:.1f}; "
            f"p={p_value:.2g}, Holm {p_holm:.2g}"
        )
    note = ""
    if verdict == "undecided":
        wanted = needed_n(lost, gained, n, margin=policy.margin, alpha=policy.alpha, tests=tests)
        note = f"about {wanted:,} samples would decide if flips continue at this rate"
    elif rise_significant and verdict != "suspicious":
        note = "improved"
    return _cell_verdict(cell, verdict, figures, note, p_value=p_holm, upper=upper)


def sequential(cells: Sequence[ComparedCell], policy: Policy, tests: int) -> list[CellVerdict]:
    """A test per cell that is valid whenever it stops, for `tests` cells in all (see `sequential_test`)."""
    return [_sequential(cell, policy, tests) for cell in cells]


def _sequential(cell: ComparedCell, policy: Policy, tests: int) -> CellVerdict:
    decision = _decision(cell, policy, tests)
    verdict: GateVerdict = decision.verdict or "undecided"
    if decision.verdict is None and any(cell.open):
        return _unfinished(cell)
    compared = cell.first(decision.at)
    e_value = decision.e_rise if verdict == "suspicious" else decision.e_drop
    figures = (
        f"{'not decided' if decision.verdict is None else 'decided'} after {decision.at} of {cell.old.n} samples; "
        f"{compared.lost} lost, {compared.gained} gained; drop {100 * (compared.lost - compared.gained) / decision.at:.1f}, at "
        f"most {100 * decision.upper:.1f}; e={e_value:.3g} of {tests / policy.alpha:.3g}"
    )
    note = ""
    if decision.verdict is None:
        wanted = needed_more(
            cell.lost,
            cell.gained,
            len(cell.order),
            margin=policy.margin,
            alpha=policy.alpha,
            both_ways=cell.doubts_rise,
        )
        note = f"about {wanted:,} more samples would decide if none of them flips"
    p_value = min(1.0, tests / e_value) if e_value else 1.0
    return _cell_verdict(compared, verdict, figures, note, p_value=p_value, upper=decision.upper)


def _unfinished(cell: ComparedCell) -> CellVerdict:
    return CellVerdict(cell.title, "incomparable", UNFINISHED, key=cell.new.key)


def _cell_verdict(
    cell: ComparedCell, verdict: GateVerdict, figures: str, note: str, *, p_value: float, upper: float
) -> CellVerdict:
    """The verdict, all of whose figures are on the samples of `cell`; the accepted figure on all samples stands beside them."""
    before, now = float(cell.before.mean()), float(cell.now.mean())
    sentence = f"{100 * before:.1f} % → {100 * now:.1f} % ({figures})"
    if before != cell.accepted:
        sentence += f"; accepted on all {cell.old.n} samples: {100 * cell.accepted:.1f} %"
    masked = [f"{name} blocks the row: {text.removesuffix('.')}" for name, text in cell.new_blocks.items()]
    if masked and cell.old.blocks is None:
        masked.append("the baseline does not record flags: if it had this one, `gauntlet baseline accept`")
    if masked and verdict == "regressed":
        masked.append("the drop is significant")
    return CellVerdict(
        cell.title,
        "masked" if masked else verdict,
        "; ".join([sentence, *masked, *_notes(cell, verdict, note)]),
        lost=cell.lost,
        gained=cell.gained,
        n=len(cell.order),
        p_value=p_value,
        upper=upper,
        baseline_robust=before,
        robust=now,
        accepted_robust=cell.accepted,
        accepted_n=cell.old.n,
        flags=tuple(cell.new_blocks),
        key=cell.new.key,
        lost_at=tuple(sorted(int(at) for at in cell.order[cell.before & ~cell.now])),
    )


def _notes(cell: ComparedCell, verdict: GateVerdict, note: str) -> list[str]:
    old, new, trace = cell.old, cell.new, cell.trace
    notes = []
    if verdict == "suspicious":
        reason = "although the weights are the baseline's" if cell.same_weights else "with masked gradients"
        notes.append(f"robustness rose {reason}: check for a weaker attack, or accept anew")
    if cell.more_masked:
        notes.append(f"samples that stand with masked gradients: {old.masked} → {new.masked}")
    if note:
        notes.append(note)
    if kept := sorted((old.blocks or {}).keys() & (new.blocks or {}).keys()):
        notes.append(f"blocked as the baseline is: {', '.join(kept)}")
    if old.spec != new.spec:
        notes.append("the attack's settings are not the baseline's")
    if old.seed != new.seed:
        notes.append(f"the baseline's seed was {old.seed}")
    if old.randomised or new.randomised:
        notes.append("randomised: outcomes are majority verdicts over fresh draws")
    if trace is not None and trace.replay:
        notes.append(trace.replay)
    if cell.excused:
        notes.append(f"{cell.excused} more were broken by examples that break the baseline's model too")
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
        both_ways=cell.doubts_rise,
    )


def _decision(cell: ComparedCell, policy: Policy, tests: int) -> SequentialDecision:
    differences = cell.before.astype(np.int64) - cell.now.astype(np.int64)
    return sequential_decision(
        differences, margin=policy.margin, alpha=policy.alpha, tests=tests, both_ways=cell.doubts_rise
    )


def title(old: BaselineCell | None, new: BaselineCell | None) -> str:
    """The title of the cell in the run, or else in the baseline, with its seed."""
    cell = new or old
    return f"{cell.title}, seed {cell.seed}" if cell else ""
