"""Curtailment: what it says early is what the gate says of all samples, whatever the open ones do."""

from itertools import combinations_with_replacement, product

import numpy as np
import pytest

from builders import baseline, baseline_cell
from gauntlet.leaderboard.gate.curtailment import curtailed_verdict
from gauntlet.leaderboard.gate.judge import judge
from gauntlet.leaderboard.gate.policy import Policy
from gauntlet.leaderboard.stats.paired import drop_p_value, drop_upper

MARGIN, ALPHA = 0.02, 0.05


def gate(flips, n, *, margin, alpha, both_ways):
    """The verdict of the gate on the first of several cells, each given by how many of its n samples are lost and gained."""
    olds, news = [], []
    for at, (lost, gained) in enumerate(flips):
        now = np.arange(n) >= lost
        before = (np.arange(n) < lost) | (np.arange(n) >= lost + gained)
        olds.append(baseline_cell(before, model=f"m{at}"))
        news.append(baseline_cell(now, model=f"m{at}", weights="before" if both_ways else "after"))
    return judge(baseline(*olds), baseline(*news), Policy(margin=margin, alpha=alpha)).verdicts[0].verdict


def outcomes(lost, gained, may_lose, may_gain):
    return product(range(lost, lost + may_lose + 1), range(gained, gained + may_gain + 1))


def situations(n):
    """All counts so far and of open samples that fit n."""
    for lost, gained, may_lose, may_gain in product(range(n + 1), repeat=4):
        if lost + gained + may_lose + may_gain <= n:
            yield lost, gained, may_lose, may_gain


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize(("n", "margin", "alpha"), [(12, 0.3, 0.05), (9, 0.5, 0.2), (7, 0.45, 0.4), (1, 0.5, 0.05)])
def test_of_one_cell_a_verdict_is_settled_exactly_where_all_that_the_open_samples_may_do_leads_to_it(
    n, margin, alpha, both_ways
):
    given = {"margin": margin, "alpha": alpha, "both_ways": both_ways}
    of = {(lost, gained): gate([(lost, gained)], n, **given) for lost, gained, _, _ in situations(n)}
    for situation in situations(n):
        possible = {of[outcome] for outcome in outcomes(*situation)}
        expected = possible.pop() if len(possible) == 1 else None
        assert curtailed_verdict(*situation, n, tests=1, **given) == expected, situation


@pytest.mark.parametrize("both_ways", [False, True])
def test_of_three_cells_what_is_settled_is_the_verdict_whatever_the_other_cells_and_the_open_samples_do(both_ways):
    n, given = 8, {"margin": 0.35, "alpha": 0.2, "both_ways": both_ways}
    others = list(combinations_with_replacement([(0, 0), (0, 8), (8, 0), (5, 1), (3, 0)], 2))
    of = {
        (lost, gained): {gate([(lost, gained), *pair], n, **given) for pair in others}
        for lost, gained in {situation[:2] for situation in situations(n)}
    }
    early = set()
    for situation in situations(n):
        verdict = curtailed_verdict(*situation, n, tests=3, **given)
        if verdict:
            assert set().union(*(of[outcome] for outcome in outcomes(*situation))) == {verdict}, situation
            early |= {verdict} if situation[2] and situation[3] else set()
    assert early == {"regressed", "held", "undecided"} | ({"suspicious"} if both_ways else set())


@pytest.mark.parametrize("both_ways", [False, True])
def test_of_hundreds_of_samples_too_a_verdict_is_settled_exactly_where_it_cannot_change(both_ways):
    n, given = 400, {"margin": MARGIN, "alpha": ALPHA, "both_ways": both_ways}
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(120):
        situation = (*rng.integers(0, 16, size=2).tolist(), *rng.integers(0, 3, size=2).tolist())
        possible = {gate([outcome], n, **given) for outcome in outcomes(*situation)}
        verdict = curtailed_verdict(*situation, n, tests=1, **given)
        assert verdict == (possible.pop() if len(possible) == 1 else None), situation
        seen.append(verdict)
    assert set(seen) >= {"regressed", "held", "undecided", None}
    assert ("suspicious" in seen) == both_ways


@pytest.mark.parametrize("power", [2, 4, 5, 6])
def test_a_p_value_that_equals_alpha_is_as_little_significant_as_in_the_gate(power):
    given = {"margin": 0.9, "alpha": 0.5**power, "both_ways": False}
    assert curtailed_verdict(power, 0, 0, 0, 20, tests=1, **given) == gate([(power, 0)], 20, **given) == "held"
    assert curtailed_verdict(power + 1, 0, 0, 0, 20, tests=1, **given) == "regressed"
    assert curtailed_verdict(power + 1, 0, 0, 0, 20, tests=2, **given) is None
    assert curtailed_verdict(power + 2, 0, 0, 0, 20, tests=2, **given) == "regressed"


# What makes two outcomes stand for all


@pytest.mark.parametrize("n", [1, 6, 17, 26])
@pytest.mark.parametrize("confidence", [0.6, 0.95, 0.999])
def test_more_losses_raise_the_bound_of_the_drop_and_more_gains_lower_it(n, confidence):
    bound = {(lost, gained): drop_upper(lost, gained, n, confidence) for lost, gained, _, _ in situations_of_two(n)}
    for (lost, gained), here in bound.items():
        assert bound.get((lost + 1, gained), 2) >= here - 1e-12
        assert bound.get((lost, gained + 1), -2) <= here + 1e-12


def situations_of_two(n):
    return ((lost, gained, 0, 0) for lost in range(n + 1) for gained in range(n + 1 - lost))


@pytest.mark.parametrize("n", [100, 797, 2000])
def test_near_a_margin_of_two_points_too(n):
    bound = np.array([[drop_upper(lost, gained, n, 0.95) for gained in range(45)] for lost in range(45)])
    assert (np.diff(bound, axis=0) > -1e-12).all()
    assert (np.diff(bound, axis=1) < 1e-12).all()


def test_more_losses_lower_the_p_value_of_a_drop_and_more_gains_raise_it():
    p = np.array([[drop_p_value(lost, gained) for gained in range(40)] for lost in range(40)])
    assert (np.diff(p, axis=0) <= 0).all()
    assert (np.diff(p, axis=1) >= 0).all()


# How early it settles


def share_attacked(before, now, *, tests=1):
    """The share of samples, in their order, after which the verdict is settled, and the verdict."""
    n = len(before)
    for at in range(n + 1):
        seen, left = slice(None, at), slice(at, None)
        lost, gained = (before & ~now)[seen].sum(), (~before & now)[seen].sum()
        counts = (int(lost), int(gained), int(before[left].sum()), int((~before)[left].sum()))
        verdict = curtailed_verdict(*counts, n, margin=MARGIN, alpha=ALPHA, tests=tests, both_ways=False)
        if verdict:
            return at / n, verdict
    raise AssertionError("not settled by all samples")


def planted(rng, lost, gained, *, n=797, robust=574):
    """Which samples are robust before and now, in random order, each lost and gained with these chances."""
    before = rng.permutation(n) < robust
    flips = rng.random(n) < np.where(before, lost * n / robust, gained * n / (n - robust))
    return before, before ^ flips


def mean_share(lost, gained, *, broken_first, tests=1, runs=20):
    rng = np.random.default_rng(0)
    shares, verdicts = [], []
    for _ in range(runs):
        before, now = planted(rng, lost, gained)
        order = np.argsort(before, kind="stable") if broken_first else np.arange(len(before))
        share, verdict = share_attacked(before[order], now[order], tests=tests)
        shares.append(share)
        verdicts.append(verdict)
    return float(np.mean(shares)), set(verdicts)


@pytest.mark.parametrize(
    ("lost", "gained", "broken_first", "tests", "share", "verdict"),
    [
        (0.1, 0.0, True, 1, 0.33, "regressed"),
        (0.11, 0.01, True, 1, 0.42, "regressed"),
        (0.11, 0.01, True, 5, 0.47, "regressed"),
        (0.11, 0.01, False, 1, 0.80, "regressed"),
        (0.0, 0.0, False, 1, 0.99, "held"),
        (0.0, 0.0, True, 1, 0.99, "held"),
    ],
)
def test_ten_points_lost_are_settled_early_where_broken_samples_come_first_and_held_late(
    lost, gained, broken_first, tests, share, verdict
):
    found, verdicts = mean_share(lost, gained, broken_first=broken_first, tests=tests)
    assert found == pytest.approx(share, abs=0.015)
    assert verdicts == {verdict}


def test_where_hardly_anything_was_robust_held_is_settled_before_any_attack():
    assert curtailed_verdict(0, 0, 5, 792, 797, margin=MARGIN, alpha=0.01, tests=1, both_ways=False) == "held"


def test_once_nothing_can_be_gained_five_losses_settle_a_drop_and_four_do_not():
    given = {"margin": MARGIN, "alpha": ALPHA, "both_ways": False}
    assert curtailed_verdict(5, 0, 500, 0, 797, tests=1, **given) == "regressed"
    assert curtailed_verdict(4, 0, 500, 0, 797, tests=1, **given) is None
    assert curtailed_verdict(5, 0, 500, 0, 797, tests=5, **given) is None


@pytest.mark.parametrize("counts", [(-1, 0, 0, 0), (0, -1, 0, 0), (0, 0, -1, 0), (0, 0, 0, -1), (3, 3, 3, 2)])
def test_counts_that_do_not_fit_the_samples_are_refused(counts):
    with pytest.raises(ValueError, match="different samples"):
        curtailed_verdict(*counts, 10, margin=MARGIN, alpha=ALPHA, tests=1, both_ways=False)


def test_no_cell_at_all_is_refused():
    with pytest.raises(ValueError, match="tests 0"):
        curtailed_verdict(0, 0, 0, 0, 10, margin=MARGIN, alpha=ALPHA, tests=0, both_ways=False)
