"""Curtailment of the gate's fixed test: stop once the verdict on the full set cannot change.

Curtailment does not change the error rates, because the verdict is the one that all samples would give. The order of the
samples is therefore free, and determines the savings: samples that are broken in the baseline can only be gained, samples that
are robust in it can only be lost. Once all broken samples are attacked (they are cheap, since a successful attack stops early),
a drop is certain after as few losses as significance requires; before that, each of them could still offset a loss. *Held* is
late in any order: without a flip it needs at most 4 open robust samples, because 5 losses would be a significant drop.

Simulated (20 runs, seed 0; 797 samples, 574 of them robust in the baseline; one cell): with 11 % lost and 1 % gained, the
verdict is certain after 80 % of the samples in random order, and after 42 % if the broken ones come first (28 % of all; a fifth
of the robust ones is 14 %). If nothing flips, it takes 99 % in either order.
"""

from __future__ import annotations

from gauntlet.leaderboard.gate.report import GateVerdict
from gauntlet.leaderboard.stats.paired import drop_p_value, drop_upper


def curtailed_verdict(
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
) -> GateVerdict | None:
    """The verdict of `judge` on all `n` samples whatever the open ones give; None while it can still change.

    `lost` and `gained` are the counts so far; of the open samples at most `may_lose` (robust in the baseline) can be lost and at
    most `may_gain` (broken in the baseline) gained. `tests` is the maximum number of cells that the gate compares. `both_ways`:
    the weights are the baseline's, so that a significant rise is suspicious. `margin` and `alpha` are the policy's.

    Holm's adjusted p-value lies between p and tests * p whatever the other cells give: regressed and suspicious are decided by
    tests * p, held and undecided by p. With one test the answer is therefore exact: None only if two outcomes of the open
    samples lead to different verdicts. P-values and bound are monotone in both counts, so that two outcomes cover all others:
    `best`, with nothing more lost and everything gained that can be, and `worst`, the reverse.

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
    # If a rise is significant, a drop is not, so that no other verdict takes precedence.
    if both_ways and tests * drop_p_value(*reversed(worst)) < alpha:
        return "suspicious"
    may_fall = drop_p_value(*worst) < alpha
    may_rise = both_ways and drop_p_value(*reversed(best)) < alpha
    if may_fall or may_rise:
        return None
    if drop_upper(*worst, n, 1 - alpha) < margin:
        return "held"
    return "undecided" if drop_upper(*best, n, 1 - alpha) >= margin else None
