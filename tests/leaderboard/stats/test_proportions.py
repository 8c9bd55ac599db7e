"""Shares, paired tests and corrections against scipy and statsmodels."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import beta, binom
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from gauntlet.leaderboard.stats.proportions import Proportion, holm, mcnemar, mcnemar_pairs


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 100), (581, 797), (797, 797), (3, 7)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_the_interval_is_that_of_clopper_and_pearson(successes, n, confidence):
    low, high = Proportion(successes, n).interval_at(confidence)
    assert (low, high) == pytest.approx(proportion_confint(successes, n, 1 - confidence, method="beta"), abs=1e-9)
    tail = (1 - confidence) / 2
    assert low == pytest.approx(beta.ppf(tail, successes, n - successes + 1) if successes else 0.0, abs=1e-9)
    assert low <= successes / n <= high


def test_the_interval_covers_at_least_95_percent_everywhere():
    n = 60
    intervals = np.array([Proportion(k, n).interval for k in range(n + 1)])
    for p in np.linspace(0.001, 0.999, 400):
        inside = (intervals[:, 0] <= p) & (p <= intervals[:, 1])
        assert binom.pmf(np.arange(n + 1), n, p)[inside].sum() >= 0.95


def test_a_share_of_nothing_is_not_a_number():
    nothing = Proportion(0, 0)
    assert math.isnan(nothing.estimate)
    assert all(math.isnan(end) for end in nothing.interval)
    assert Proportion.of(np.zeros(0, bool)) == nothing


def test_a_share_counts_what_is_true():
    assert Proportion.of(np.array([True, False, True, True])) == Proportion(3, 4)
    assert Proportion(3, 4).estimate == 0.75


@pytest.mark.parametrize(("successes", "n"), [(2, 1), (-1, 5), (0, -1)])
def test_more_successes_than_samples_are_refused_with_both_numbers(successes, n):
    with pytest.raises(ValueError, match=rf"successes {successes} .* n {n}"):
        Proportion(successes, n)


def paired(both, only_first, only_second, neither):
    first = [True] * (both + only_first) + [False] * (only_second + neither)
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return np.array(first, bool), np.array(second, bool)


@pytest.mark.parametrize("counts", [(5, 12, 3, 9), (0, 1, 0, 0), (40, 7, 7, 1), (100, 0, 25, 3), (3, 300, 340, 2)])
def test_the_two_sided_test_agrees_with_statsmodels(counts):
    first, second = paired(*counts)
    both, only_first, only_second, neither = counts
    expected = reference_mcnemar([[both, only_first], [only_second, neither]], exact=True).pvalue
    test = mcnemar(first, second)
    assert test.p_value == pytest.approx(min(expected, 1.0), abs=1e-12)
    assert (test.only_first, test.only_second) == (only_first, only_second)


@pytest.mark.parametrize(("only_first", "only_second"), [(12, 3), (3, 12), (5, 5), (0, 8)])
def test_the_one_sided_tests_are_the_binomial_tails(only_first, only_second):
    first, second = paired(4, only_first, only_second, 4)
    n = only_first + only_second
    assert mcnemar(first, second, "greater").p_value == pytest.approx(binom.sf(only_first - 1, n, 0.5), abs=1e-12)
    assert mcnemar(first, second, "less").p_value == pytest.approx(binom.cdf(only_first, n, 0.5), abs=1e-12)


def test_equal_outcomes_have_a_p_value_of_one_on_every_side():
    bits = np.array([True, False, True])
    assert [mcnemar(bits, bits, side).p_value for side in ("two-sided", "greater", "less")] == [1.0, 1.0, 1.0]


def test_outcomes_of_different_samples_are_refused():
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
        mcnemar(np.ones(3, bool), np.ones(2, bool))


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_adjusted_p_values_are_holms_and_not_holm_sidaks(count):
    rng = np.random.default_rng(count)
    p_values = rng.uniform(size=count) ** 4
    adjusted = holm(p_values.tolist())
    np.testing.assert_allclose(adjusted, multipletests(p_values, method="holm")[1], atol=1e-15)
    if count > 1:
        assert not np.allclose(adjusted, multipletests(p_values, method="holm-sidak")[1])


def test_adjusted_p_values_of_a_small_example_are_those_computed_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([]).shape == (0,)


@pytest.mark.parametrize("p_values", [[0.5, math.nan], [1.2], [-0.1]])
def test_a_p_value_outside_0_to_1_is_refused(p_values):
    with pytest.raises(ValueError, match="p_values"):
        holm(p_values)


def test_the_tests_of_all_pairs_at_once_are_those_of_each_pair():
    outcomes = list(np.random.default_rng(0).random((9, 300)) < np.linspace(0.4, 0.7, 9)[:, None])
    pairs = combinations(range(len(outcomes)), 2)
    assert mcnemar_pairs(outcomes) == [mcnemar(outcomes[a], outcomes[b]) for a, b in pairs]
    assert mcnemar_pairs([]) == mcnemar_pairs(outcomes[:1]) == []
    with pytest.raises(ValueError, match="pair outcomes of the same samples"):
        mcnemar_pairs([outcomes[0], outcomes[1][:5]])
