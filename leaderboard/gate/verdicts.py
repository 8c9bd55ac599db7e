"""The verdict on each pair of comparable cells: by one test on all samples, or by a sequential test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gauntlet.leaderboard.gate.baseline import Test
from gauntlet.leaderboard.gate.compared_cell import ComparedCell
from gauntlet.leaderboard.gate.curtailment import curtailed_verdict
from gauntlet.leaderboard.gate.policy import Policy
from gauntlet.leaderboard.gate.report import CellVerdict, GateVerdict
from gauntlet.leaderboard.gate.sequential_test import SequentialDecision, needed_more, sequential_decision
from gauntlet.leaderboard.stats.paired import drop_p_value, drop_upper, needed_n
from gauntlet.leaderboard.stats.proportions import holm

UNFINISHED = "The gate stopped before a verdict was certain: run the same command again to continue."


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
    elif rise_significant and cell.doubts_rise(policy.alpha):
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
    return _cell_verdict(cell, verdict, figures, note, p_value=p_holm, upper=upper, alpha=policy.alpha)


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
            both_ways=cell.doubts_rise(policy.alpha),
        )
        note = f"about {wanted:,} more samples would decide if none of them flips"
    p_value = min(1.0, tests / e_value) if e_value else 1.0
    return _cell_verdict(compared, verdict, figures, note, p_value=p_value, upper=decision.upper, alpha=policy.alpha)


def _unfinished(cell: ComparedCell) -> CellVerdict:
    return CellVerdict(cell.title, "incomparable", UNFINISHED, key=cell.new.key)


def _cell_verdict(
    cell: ComparedCell, verdict: GateVerdict, figures: str, note: str, *, p_value: float, upper: float, alpha: float
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
        "; ".join([sentence, *masked, *_notes(cell, verdict, note, alpha)]),
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


def _notes(cell: ComparedCell, verdict: GateVerdict, note: str, alpha: float) -> list[str]:
    old, new, trace = cell.old, cell.new, cell.trace
    notes = []
    if verdict == "suspicious":
        reason = "although the weights are the baseline's" if cell.same_weights else "with masked gradients"
        notes.append(f"robustness rose {reason}: check for a weaker attack, or accept anew")
    if cell.masked is not None and cell.more_masked(alpha):
        (before, stood), (now, stand) = cell.masked
        notes.append(f"samples that stand with masked gradients: {before} of {stood} → {now} of {stand}")
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
        both_ways=cell.doubts_rise(policy.alpha),
    )


def _decision(cell: ComparedCell, policy: Policy, tests: int) -> SequentialDecision:
    differences = cell.before.astype(np.int64) - cell.now.astype(np.int64)
    return sequential_decision(
        differences, margin=policy.margin, alpha=policy.alpha, tests=tests, both_ways=cell.doubts_rise(policy.alpha)
    )
