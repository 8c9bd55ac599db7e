"""Bounds and tails of the binomial distribution against scipy."""

from __future__ import annotations

import pytest
from scipy.stats import beta, binom

from gauntlet.leaderboard.stats.binomial import beta_quantile, half_tail


@pytest.mark.parametrize("n", [1, 2, 3, 10, 100, 797, 10_000, 1_000_000])
@pytest.mark.parametrize("probability", [1e-6, 0.025, 0.05, 0.5, 0.975])
def test_quantiles_of_the_beta_distribution_are_those_of_scipy(n, probability):
    counts = sorted({0, 1, 2, n // 7, n // 2, n - 2, n - 1} & set(range(n)))
    for k in counts:
        expected = beta.ppf(probability, k + 1, n - k)
        assert beta_quantile(probability, k + 1, n - k) == pytest.approx(expected, rel=1e-10, abs=1e-12), k


@pytest.mark.parametrize("n", [1, 2, 7, 30, 100, 797, 5_000])
def test_tails_of_a_fair_coin_are_those_of_scipy(n):
    for k in sorted({0, 1, n // 3, n // 2, (n + 1) // 2, n // 2 + 1, n - 1, n}):
        assert half_tail(k, n) == pytest.approx(binom.sf(k - 1, n, 0.5), rel=1e-12, abs=1e-300), k


def test_the_tail_of_half_of_an_odd_number_is_exactly_a_half():
    assert [half_tail((n + 1) // 2, n) for n in (1, 3, 101, 1001)] == [0.5] * 4
