"""Bounds and tails of the binomial distribution against scipy."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from scipy.stats import beta, binom, fisher_exact

from gauntlet.leaderboard.stats.binomial import beta_quantile, half_tail, share_rose_p_value


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


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ((0, 700), (5, 780)),
        ((30, 700), (36, 780)),
        ((0, 0), (0, 5)),
        ((3, 3), (4, 4)),
        ((2, 10), (9, 12)),
        ((5, 9), (0, 0)),
    ],
)
def test_a_share_that_rose_is_tested_as_by_scipy(before, now):
    table = [[now[0], now[1] - now[0]], [before[0], before[1] - before[0]]]
    assert share_rose_p_value(before, now) == pytest.approx(fisher_exact(table, alternative="greater").pvalue, rel=1e-9)


@pytest.mark.parametrize(("before", "now"), [((3, 2), (0, 1)), ((0, 1), (-1, 1))])
def test_counts_that_are_not_are_refused(before, now):
    with pytest.raises(ValueError, match="counts"):
        share_rose_p_value(before, now)


def exact_half_tail(k, n):
    return float(Fraction(sum(math.comb(n, successes) for successes in range(k, n + 1)), 2**n))


@pytest.mark.parametrize("n", [513, 700, 1001, 3000])
def test_tails_of_many_draws_are_the_double_nearest_to_the_exact_share(n):
    for k in {n // 2 + 1, n // 2 + 7, n // 2 + n // 20, n - n // 4, n - 3, n}:
        assert half_tail(k, n) == exact_half_tail(k, n), k
