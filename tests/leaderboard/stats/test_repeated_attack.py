"""An honest folder is rarely accused, a forged one is, and the chance is that of the exact test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from gauntlet.leaderboard.stats.binomial import binomial_tail
from gauntlet.leaderboard.stats.repeated_attack import RepeatedAttack


@pytest.mark.parametrize("n", [1, 7, 60, 900])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 0.97, 1.0])
def test_the_tail_is_that_of_scipy(n, share):
    for k in {0, 1, n // 3, n, n + 1}:
        assert binomial_tail(k, n, share) == pytest.approx(binom.sf(k - 1, n, share), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match="share"):
        binomial_tail(1, 2, share)


def test_a_whole_repetition_is_mcnemars_test():
    found = RepeatedAttack(standing=80, attacked=80, fell=9, broken=60, repeated=60, stood=2).p_value
    assert found == pytest.approx(binomtest(9, 11, 0.5, alternative="greater").pvalue)


def test_without_a_change_nothing_is_unlikely():
    assert RepeatedAttack(80, 10, 0, 60, 40, 0).p_value == 1.0
    assert RepeatedAttack(0, 0, 0, 60, 40, 12).p_value == 1.0


def test_falls_are_less_likely_where_broken_samples_break_again():
    steady, unsteady = (RepeatedAttack(100, 20, 5, 100, 80, stood).p_value for stood in (0, 20))
    assert steady < 0.001
    assert unsteady > 0.3


@pytest.mark.parametrize(
    "counts", [(5, 6, 0, 1, 1, 0), (5, 3, 4, 1, 1, 0), (5, 5, 0, 2, 3, 0), (5, 5, 0, 3, 2, 3), (5, 5, -1, 1, 1, 0)]
)
def test_counts_that_do_not_fit_are_refused(counts):
    with pytest.raises(ValueError, match="rising counts"):
        RepeatedAttack(*counts)


def _repeated(chances, recorded, again, take):
    """The counts where the first `take` standing samples and four times as many broken ones are attacked again."""
    standing, broken = np.flatnonzero(~recorded), np.flatnonzero(recorded)
    attacked, repeated = standing[:take], broken[: 4 * take]
    return RepeatedAttack(
        len(standing),
        len(attacked),
        int(again[attacked].sum()),
        len(broken),
        len(repeated),
        int((~again[repeated]).sum()),
    )


@pytest.mark.parametrize("unstable", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("take", [10, 40, 200])
def test_honest_folders_are_accused_no_more_often_than_stated(unstable, take):
    """Samples that always break, never break, and, `unstable` of them, break with a chance of their own."""
    random = np.random.default_rng(take)
    alarms = {0.01: 0, 0.1: 0}
    trials = 2000
    for _ in range(trials):
        chances = (random.random(300) < 0.4).astype(float)
        some = random.random(300) < unstable
        chances[some] = random.random(some.sum())
        found = _repeated(chances, *(random.random(300) < chances for _ in range(2)), take).p_value
        alarms = {level: count + (found <= level) for level, count in alarms.items()}
    for level, count in alarms.items():
        # Within what 2,000 trials at exactly this level would give in 999 of 1,000 cases.
        assert count <= binom.ppf(0.999, trials, level), (level, count)


def test_a_folder_that_hides_three_tenths_of_what_breaks_is_accused():
    random = np.random.default_rng(0)
    found = []
    for _ in range(200):
        chances = (random.random(300) < 0.6).astype(float)
        chances[:30] = random.random(30)
        recorded, again = (random.random(300) < chances for _ in range(2))
        forged = recorded & ~(random.random(300) < 0.3)
        found.append(_repeated(chances, forged, again, 60).p_value)
    assert np.mean(np.array(found) < 0.01) > 0.95
