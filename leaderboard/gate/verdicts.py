"""A verdict for each pair of cells that can be compared: by one test on all samples, or by a sequential one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.gate.baseline import BaselineCell, Test
from gauntlet.leaderboard.gate.curtailment import settled
from gauntlet.leaderboard.gate.policy import Policy
from gauntlet.leaderboard.gate.report import CellVerdict, Verdict
from gauntlet.leaderboard.gate.sequential_test import Walk, needed_more, walk
from gauntlet.leaderboard.gate.trace import Trace, order_of
from gauntlet.leaderboard.stats.paired import drop_p_value, drop_upper, needed_n
from gauntlet.leaderboard.stats.proportions import holm


@dataclass(frozen=True, eq=False)
class Pair:
    """A cell of the baseline and its partner in the run, with the same samples before and now, in the order of the test."""

    old: BaselineCell
    new: BaselineCell
    order: npt.NDArray[np.int64]
    before: npt.NDArray[np.bool_]
    now: npt.NDArray[np.bool_]
    trace: Trace | None = None

    @classmethod
    def of(cls, old: BaselineCell, new: BaselineCell, trace: Trace | None) -> Pair:
        """From what a gate that stops early saw, else from all samples."""
        if trace is not None:
            return cls(old, new, trace.order, trace.before, trace.now, trace)
        order = order_of(old)
        return cls(old, new, order, old.robust[order], new.robust[order])

    @property
    def lost(self) -> int:
        """Samples that were robust and are no more."""
        return int((self.before & ~self.now).sum())

    @property
    def gained(self) -> int:
        """The other way round."""
        return int((~self.before & self.now).sum())

    @property
    def open(self) -> tuple[int, int]:
        """Of the samples that are not decided, how many can still be lost, and how many gained."""
        left = np.ones(self.old.n, dtype=np.bool_)
        left[self.order] = False
        return int(self.old.robust[left].sum()), int((~self.old.robust[left]).sum())

    @property
    def same_weights(self) -> bool:
        """Whether a rise of robustness has nothing in the model to explain it."""
        return bool(self.old.weights) and self.old.weights == self.new.weights


UNFINISHED = "The gate stopped before a verdict was certain: run the same command again, it goes on where it stopped."


def fixed(pairs: Sequence[Pair], policy: Policy) -> list[CellVerdict]:
    """One exact test a cell on all samples, with Holm's correction over the cells.

    Of samples that a curtailed run left open the least favourable outcome is taken for each figure that is shown, so that
    what is shown holds whatever they would have given.
    """
    opens = [pair.open for pair in pairs]
    drops = [drop_p_value(pair.lost, pair.gained + may[1]) for pair, may in zip(pairs, opens, strict=True)]
    rises = [drop_p_value(pair.gained, pair.lost + may[0]) for pair, may in zip(pairs, opens, strict=True)]
    fallen, risen = holm(drops), holm(rises)
    return [
        _fixed(pair, opens[i], (drops[i], rises[i]), (float(fallen[i]), float(risen[i])), len(pairs), policy)
        for i, pair in enumerate(pairs)
    ]


def _fixed(
    pair: Pair,
    may: tuple[int, int],
    p_values: tuple[float, float],
    adjusted: tuple[float, float],
    tests: int,
    policy: Policy,
) -> CellVerdict:
    lost, gained, n = pair.lost, pair.gained, pair.old.n
    upper = drop_upper(lost + may[0], gained, n, 1 - policy.alpha)
    risen = adjusted[1] < policy.alpha
    verdict: Verdict | None
    if any(may):
        verdict = _settled(pair, policy, tests)
    elif adjusted[0] < policy.alpha:
        verdict = "regressed"
    elif risen and pair.same_weights:
        verdict = "suspicious"
    else:
        verdict = "held" if upper < policy.margin else "undecided"
    if verdict is None:
        return CellVerdict(title(pair.old, pair.new), "incomparable", UNFINISHED, key=pair.new.key)
    which = 1 if verdict == "suspicious" else 0
    before = (int(pair.before.sum()) + may[0]) / n
    now = (int(pair.now.sum()) + sum(may)) / n
    bound = "at most " if any(may) else ""
    seen = f"certain after {len(pair.order)} of {n} samples" if any(may) else f"n={n}"
    drop = "" if any(may) else f"drop {100 * (before - now):.1f}, at most {100 * upper:.1f}; "
    figures = (
        f"{100 * before:.1f} % → {bound}{100 * now:.1f} % ({seen}; {lost} lost, {gained} gained; {drop}"
        f"p{'≤' if any(may) else '='}{p_values[which]:.2g}, Holm {adjusted[which]:.2g})"
    )
    more = ""
    if verdict == "undecided":
        wanted = needed_n(lost, gained, n, margin=policy.margin, alpha=policy.alpha, tests=tests)
        more = f"about {wanted:,} samples would decide if flips go on at this rate"
    elif risen and verdict != "suspicious":
        more = "improved"
    return _told(pair, verdict, figures, more, p_value=adjusted[which], upper=upper, shares=(before, now))


def sequential(pairs: Sequence[Pair], policy: Policy, tests: int) -> list[CellVerdict]:
    """A test that is valid whenever it stops, for each of `tests` cells (see `sequential.walk`)."""
    return [_sequential(pair, policy, tests) for pair in pairs]


def _sequential(pair: Pair, policy: Policy, tests: int) -> CellVerdict:
    found = _walked(pair, policy, tests)
    verdict: Verdict = found.verdict or "undecided"
    if found.verdict is None and any(pair.open):
        return CellVerdict(title(pair.old, pair.new), "incomparable", UNFINISHED, key=pair.new.key)
    before, now = (float(bits[: found.at].mean()) for bits in (pair.before, pair.now))
    e_value = found.e_rise if verdict == "suspicious" else found.e_drop
    when = "not decided after" if found.verdict is None else "decided after"
    figures = (
        f"{100 * before:.1f} % → {100 * now:.1f} % ({when} {found.at} of {pair.old.n} samples; "
        f"{found.lost} lost, {found.gained} gained; drop {100 * (before - now):.1f}, at most {100 * found.upper:.1f}; "
        f"e={e_value:.3g} of {tests / policy.alpha:.3g})"
    )
    more = ""
    if found.verdict is None:
        wanted = needed_more(
            pair.lost,
            pair.gained,
            len(pair.order),
            margin=policy.margin,
            alpha=policy.alpha,
            both_ways=pair.same_weights,
        )
        more = f"about {wanted:,} samples more would decide if none of them flips"
    p_value = min(1.0, tests / e_value) if e_value else 1.0
    return _told(pair, verdict, figures, more, p_value=p_value, upper=found.upper, shares=(before, now))


def _told(
    pair: Pair, verdict: Verdict, figures: str, more: str, *, p_value: float, upper: float, shares: tuple[float, float]
) -> CellVerdict:
    old, new, notes = pair.old, pair.new, []
    if verdict == "suspicious":
        notes.append("robustness rose though the weights are the baseline's: is the attack weaker? If not, accept anew")
    if more:
        notes.append(more)
    if old.spec != new.spec:
        notes.append("the attack's settings are not the baseline's")
    if old.seed != new.seed:
        notes.append(f"the baseline's seed was {old.seed}")
    if old.randomised or new.randomised:
        notes.append("randomised: bits are majority verdicts over fresh draws")
    if pair.trace is not None:
        luck = f"{pair.trace.pardoned} more broke under examples that break the baseline's model, too"
        notes += [one for one in (pair.trace.replay, luck if pair.trace.pardoned else "") if one]
    return CellVerdict(
        title(pair.old, pair.new),
        verdict,
        "; ".join([figures, *notes]),
        lost=pair.lost,
        gained=pair.gained,
        n=len(pair.order),
        p_value=p_value,
        upper=upper,
        baseline_robust=shares[0],
        robust=shares[1],
        key=pair.new.key,
        lost_at=tuple(sorted(int(at) for at in pair.order[pair.before & ~pair.now])),
    )


def certain(pair: Pair, policy: Policy, test: Test, tests: int) -> bool:
    """Whether the verdict is certain, whatever the samples that are not decided would give. `tests`: cells of the baseline."""
    if not any(pair.open):
        return True
    return (_walked(pair, policy, tests).verdict if test == "sequential" else _settled(pair, policy, tests)) is not None


def _settled(pair: Pair, policy: Policy, tests: int) -> Verdict | None:
    return settled(
        pair.lost,
        pair.gained,
        *pair.open,
        pair.old.n,
        margin=policy.margin,
        alpha=policy.alpha,
        tests=tests,
        both_ways=pair.same_weights,
    )


def _walked(pair: Pair, policy: Policy, tests: int) -> Walk:
    differences = pair.before.astype(np.int64) - pair.now.astype(np.int64)
    return walk(differences, margin=policy.margin, alpha=policy.alpha, tests=tests, both_ways=pair.same_weights)


def title(old: BaselineCell | None, new: BaselineCell | None) -> str:
    """The cell as the run has it, else as the baseline."""
    cell = new or old
    return f"{cell.title}, seed {cell.seed}" if cell else ""
