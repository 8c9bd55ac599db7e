"""Curtailment of the gate's fixed test: stop once the verdict of the full set cannot change.

It costs nothing in error rates, because the verdict is the one that all samples would have given. So the order is free, and
it decides how much is saved: samples that the baseline has as broken can only be gained, those that it has as robust can only
be lost. Once all of the former are attacked (they are the cheap ones: an attack that succeeds stops early) a drop is settled
after as few losses as it takes to be significant; before, each of them might still make up for a loss. *Held* comes late in
any order: without a flip only when no more than 4 robust samples are open, because 5 losses would be a significant drop.

Simulated (20 runs, seed 0; 797 samples, 574 of them robust in the baseline; one cell): where 11 % are lost and 1 % gained, the
verdict is settled after 80 % of the samples in random order, and after 42 % where broken ones come first (these are 28 %, and a
fifth of the robust ones is 14 %). Where nothing flips it takes 99 % in either order.
"""

from __future__ import annotations

from gauntlet.leaderboard.gate.report import Verdict
from gauntlet.leaderboard.stats.paired import drop_p_value, drop_upper


def settled(
    lost: int,
    gained: int,
    may_lose: int,
    may_gain: int,
    n: int,
    *,
    margin: float,
    alpha: float,
    tests: int,
    both_ways: bool,
) -> Verdict | None:
    """The verdict that `gate.judge` gives of all `n` samples whatever the open ones do; None while it can still change.

    `lost` and `gained` are the counts so far; of the open samples at most `may_lose` (robust in the baseline) can be lost and at
    most `may_gain` (broken in the baseline) gained. `tests` is the number of cells that the gate compares, at most. `both_ways`:
    the weights are the baseline's, so that a significant rise is suspicious. `margin` and `alpha` are the policy's.

    Holm's adjusted p-value lies between p and tests * p whatever the other cells give: regressed and suspicious are settled by
    the latter, held and undecided by the former. With one test the answer is therefore exact: None only where two outcomes of
    the open samples lead to different verdicts. P-values and bound are monotone in both counts, so that two outcomes stand
    for all: `best`, where nothing more is lost and all is gained that can be, and `worst`, the other way round.

    Raises ValueError for counts that are negative or exceed `n`, and as `paired.drop_upper` does.
    """
    if min(lost, gained, may_lose, may_gain, tests - 1) < 0 or lost + gained + may_lose + may_gain > n:
        raise ValueError(
            f"lost {lost!r}, gained {gained!r}, may_lose {may_lose!r} and may_gain {may_gain!r} must be counts of different "
            f"samples out of n {n!r}, and tests {tests!r} at least 1"
        )
    best, worst = (lost, gained + may_gain), (lost + may_lose, gained)
    if tests * drop_p_value(*best) < alpha:
        return "regressed"
    # Where a rise is significant a drop is not, so that nothing takes precedence over it.
    if both_ways and tests * drop_p_value(*reversed(worst)) < alpha:
        return "suspicious"
    may_fall = drop_p_value(*worst) < alpha
    may_rise = both_ways and drop_p_value(*reversed(best)) < alpha
    if may_fall or may_rise:
        return None
    if drop_upper(*worst, n, 1 - alpha) < margin:
        return "held"
    return "undecided" if drop_upper(*best, n, 1 - alpha) >= margin else None
