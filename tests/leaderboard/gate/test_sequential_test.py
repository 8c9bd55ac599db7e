"""The sequential test: its evidence against independent computations, and its error rates, enumerated and simulated."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binom

from gauntlet.leaderboard.gate.sequential_test import (
    BETS,
    PRIOR,
    log_e_drop,
    log_e_held,
    needed_more,
    sequential_decision,
    upper,
)

MARGIN, ALPHA = 0.02, 0.05
ENOUGH = math.log(1 / ALPHA)


def judged(differences, *, margin=MARGIN, alpha=ALPHA, tests=1, both_ways=False):
    return sequential_decision(
        np.asarray(differences, int), margin=margin, alpha=alpha, tests=tests, both_ways=both_ways
    )


def drawn(rng, lost, gained, n):
    return rng.choice(np.array([1, -1, 0]), p=[lost, gained, 1 - lost - gained], size=n)


# The e-value of a drop


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (0, 1), (7, 0), (5, 5), (30, 12), (12, 30), (300, 200)])
def test_the_e_value_of_a_drop_is_the_likelihood_ratio_averaged_over_the_chance_of_a_loss(lost, gained):
    def density(theta):
        return 2 * (2 * theta) ** lost * (2 * (1 - theta)) ** gained

    expected, _ = quad(density, 0.5, 1, epsabs=0, epsrel=1e-10, limit=200)
    assert math.exp(log_e_drop(lost, gained)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("lost", "gained"), [(3, 4), (200, 1500), (1500, 200), (10, 1500), (1000, 1001), (1001, 1000), (700, 700)]
)
def test_the_e_value_of_many_flips_is_that_of_exact_arithmetic(lost, gained):
    n = lost + gained
    tail = sum(math.comb(n + 1, more) for more in range(gained + 1, n + 2))
    exact = Fraction(tail, (n + 1) * math.comb(n, lost))
    assert log_e_drop(lost, gained) == pytest.approx(math.log(exact.numerator) - math.log(exact.denominator), abs=1e-10)


def test_thousands_of_flips_one_way_neither_overflow_nor_vanish():
    assert log_e_drop(5000, 0) == pytest.approx(5001 * math.log(2) - math.log(5001))
    assert log_e_drop(0, 5000) == pytest.approx(-math.log(5001))


def test_where_losses_and_gains_are_equally_likely_the_next_flip_leaves_the_e_value_of_a_drop_as_it_is_on_average():
    lost, gained = np.mgrid[:40, :40]
    now, after = (np.exp(log_e_drop(lost + more, gained)) for more in (0, 1))
    np.testing.assert_allclose((after + np.exp(log_e_drop(lost, gained + 1))) / 2, now, rtol=1e-10)


def test_it_takes_seven_losses_without_a_gain_to_be_regressed_and_nine_among_five_cells():
    assert judged([1] * 20).at == 7
    assert judged([1] * 20, tests=5).at == 9


# The wealth for held


def wealth(differences, margin):
    """After each sample, by multiplying it up for each bet."""
    paths = [np.cumprod([1 + bet * (margin - d) for d in differences]) for bet in BETS]
    return sum(part * path for part, path in zip(PRIOR, paths, strict=True))


@pytest.mark.parametrize("margin", [0.001, 0.02, 0.3, 1.0])
def test_the_wealth_is_what_the_bets_multiply_it_to_sample_by_sample(margin):
    differences = drawn(np.random.default_rng(0), 0.1, 0.15, 300)
    lost, gained = np.cumsum(differences == 1), np.cumsum(differences == -1)
    found = log_e_held(lost, gained, np.arange(1, 301), margin)
    np.testing.assert_allclose(found, np.log(wealth(differences, margin)), rtol=1e-9, atol=1e-9)


def test_the_wealth_begins_at_one():
    assert log_e_held(0, 0, 0, MARGIN) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("gained", [0.0, 0.0025, 0.05, 0.4])
@pytest.mark.parametrize("more", [0.0, 0.01, 0.1])
def test_the_wealth_cannot_be_expected_to_grow_where_the_drop_is_the_margin_or_more(gained, more):
    chances = {1: gained + MARGIN + more, -1: gained, 0: 1 - 2 * gained - MARGIN - more}
    for lost, won, n in [(0, 0, 0), (0, 0, 150), (3, 1, 200), (20, 30, 400)]:
        now = math.exp(log_e_held(lost, won, n, MARGIN))
        after = sum(
            chance * math.exp(log_e_held(lost + (d == 1), won + (d == -1), n + 1, MARGIN))
            for d, chance in chances.items()
        )
        assert after <= now * (1 + 1e-12)
        assert more or after == pytest.approx(now, rel=1e-12)


def test_without_a_flip_180_samples_hold_two_points_and_a_first_loss_asks_for_134_more():
    assert judged([0] * 500).at == 180
    assert judged([1] + [0] * 500).at == 314


# The bound


@pytest.mark.parametrize(
    ("lost", "gained", "n"), [(0.0, 0.0, 200), (0.02, 0.01, 300), (0.2, 0.2, 150), (0.01, 0.1, 250)]
)
def test_the_bound_is_the_least_margin_against_which_the_wealth_ever_sufficed(lost, gained, n):
    differences = drawn(np.random.default_rng(1), lost, gained, n)
    margins = np.linspace(0.002, 1, 500)
    sufficed = [wealth(differences, margin).max() >= 1 / ALPHA for margin in margins]
    expected = margins[sufficed.index(True)]
    assert expected - 0.002 <= upper(differences, ALPHA) <= expected


def test_the_bound_never_rises_as_samples_come_and_holds_exactly_where_the_walk_does():
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(6):
        differences = drawn(rng, 0.01, 0.02, 400)
        bounds = [upper(differences[:k], ALPHA) for k in range(0, 400, 5)]
        assert (np.diff(bounds) <= 0).all()
        verdicts = [judged(differences[:k], tests=10**12).verdict for k in range(0, 400, 5)]
        assert [bound <= MARGIN for bound in bounds] == [verdict == "held" for verdict in verdicts]
        held += verdicts.count("held")
    assert held


def test_where_nothing_can_be_said_the_bound_is_one():
    assert upper(np.empty(0, int), ALPHA) == 1
    assert upper(np.ones(50, int), ALPHA) == 1


def test_the_bound_does_not_go_below_zero_however_much_is_gained():
    assert 0 <= upper(np.full(2000, -1), ALPHA) < 1e-9


# The walk


def followed(differences, *, margin, alpha, tests, both_ways):
    """Verdict and place of a walk, by looking after each sample at sums and products of its own."""
    held_drop = held_rise = False
    for at in range(1, len(differences) + 1):
        seen = differences[:at]
        lost, gained = (seen == 1).sum(), (seen == -1).sum()
        held_drop |= wealth(seen, margin)[-1] >= 1 / alpha
        held_rise |= wealth(-seen, margin)[-1] >= 1 / alpha
        if math.exp(log_e_drop(lost, gained)) >= tests / alpha:
            return "regressed", at
        if both_ways and math.exp(log_e_drop(gained, lost)) >= tests / alpha:
            return "suspicious", at
        if held_drop and (held_rise or not both_ways):
            return "held", at
    return None, len(differences)


@pytest.mark.parametrize("both_ways", [False, True])
def test_a_walk_ends_at_the_first_sample_that_decides(both_ways):
    rng = np.random.default_rng(3)
    seen = set()
    for lost, gained in [(0.0, 0.0), (0.02, 0.02), (0.2, 0.01), (0.01, 0.2), (0.1, 0.1)] * 2:
        differences = drawn(rng, lost, gained, 160)
        given = {"margin": 0.05, "alpha": 0.1, "tests": 2, "both_ways": both_ways}
        found = judged(differences, **given)
        assert (found.verdict, found.at) == followed(differences, **given)
        before = differences[: found.at]
        assert (found.lost, found.gained) == ((before == 1).sum(), (before == -1).sum())
        assert found.e_drop == pytest.approx(math.exp(log_e_drop(found.lost, found.gained)))
        assert found.e_rise == pytest.approx(math.exp(log_e_drop(found.gained, found.lost)))
        assert found.upper == upper(before, 0.1)
        seen.add(found.verdict)
    assert seen == ({"regressed", "suspicious", "held", None} if both_ways else {"regressed", "held", None})


@pytest.mark.parametrize("start", [[1] * 7, [-1] * 7, [0] * 300])
def test_once_decided_later_samples_change_nothing(start):
    decided = judged(start, both_ways=True)
    assert decided.verdict
    for after in ([1] * 40, [-1] * 40, [0] * 400):
        assert judged(start + after, both_ways=True) == decided


def test_a_rise_is_suspicious_only_where_the_weights_are_the_baselines():
    assert judged([-1] * 7, both_ways=True).verdict == "suspicious"
    assert judged([-1] * 7).verdict == "held"


def test_with_the_baselines_weights_held_asks_for_no_rise_either():
    one_gain = [-1] + [0] * 500
    assert judged(one_gain).at < judged([0] * 500).at
    assert judged(one_gain, both_ways=True).at == judged([1] + [0] * 500).at


def test_of_suspicious_and_held_at_the_same_sample_suspicious_counts():
    given = {"alpha": 0.4, "both_ways": True}
    path = [1, 1] + [0] * 10 + [-1] * 8
    found, without_alarms = judged(path, **given), judged(path, tests=10**9, **given)
    assert (found.verdict, without_alarms.verdict) == ("suspicious", "held")
    assert found.at == without_alarms.at
    assert judged(path, alpha=0.4).verdict == "held"


def test_no_sample_is_no_verdict():
    found = judged([])
    assert (found.verdict, found.at, found.lost, found.gained, found.upper) == (None, 0, 0, 0, 1.0)
    assert found.e_drop == found.e_rise == 1


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("start", [[], [0] * 100, [1, -1, 0, 1], [1] * 4 + [-1] * 4, [-1, -1]])
def test_the_samples_that_are_needed_decide_if_none_of_them_flips_and_one_fewer_does_not(start, both_ways):
    more = needed_more(start.count(1), start.count(-1), len(start), margin=MARGIN, alpha=ALPHA, both_ways=both_ways)
    found = judged(start + [0] * (more + 10), both_ways=both_ways)
    assert (found.verdict, found.at) == ("held", len(start) + more)


def test_where_the_wealth_suffices_no_more_samples_are_needed():
    assert needed_more(0, 0, 180, margin=MARGIN, alpha=ALPHA) == 0
    assert needed_more(0, 0, 179, margin=MARGIN, alpha=ALPHA) == 1


# What is refused


@pytest.mark.parametrize("differences", [[0, 2], [[0, 1], [1, 0]]])
def test_differences_of_other_values_or_shapes_are_refused(differences):
    with pytest.raises(ValueError, match="differences"):
        judged(differences)
    with pytest.raises(ValueError, match="differences"):
        upper(np.array(differences), ALPHA)


@pytest.mark.parametrize("wrong", [{"margin": 0.0}, {"margin": 1.0}, {"alpha": 0.0}, {"alpha": 1.0}, {"tests": 0}])
def test_settings_that_make_no_sense_are_refused_by_name(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        judged([0, 1], **wrong)


@pytest.mark.parametrize("counts", [(-1, 0, 5), (0, -1, 5), (3, 3, 5)])
def test_counts_that_do_not_fit_the_samples_are_refused(counts):
    with pytest.raises(ValueError, match="lost"):
        needed_more(*counts, margin=MARGIN, alpha=ALPHA)


# Error rates and power: enumerated exactly over all orders of samples, and simulated through the walk itself


@dataclass
class Chances:
    regressed: float
    suspicious: float
    held: float
    undecided: float
    mean: float


def enumerated(lost, gained, n, *, tests=1, both_ways=False, margin=MARGIN):
    """What a walk over `n` samples finds, and how many it takes on average, when each is lost and gained with these chances.

    A walk's future depends on the counts so far alone (and on which way it has been held already), so that the chance of
    each pair of counts is carried on from sample to sample. Counts beyond the caps have a chance below 1e-9.
    """
    caps = [int(binom.isf(1e-10, n, chance)) + 2 for chance in (lost, gained)]
    losses, gains = np.mgrid[: caps[0], : caps[1]]
    drop, rise = log_e_drop(losses, gains), log_e_drop(gains, losses)
    alarm = drop >= math.log(tests / ALPHA)
    strange = (rise >= math.log(tests / ALPHA)) & ~alarm & both_ways
    holds = [first_held(losses, gains, n, margin), first_held(gains, losses, n, margin) if both_ways else 0 * losses]
    chance = np.zeros((2, 2, *caps))  # by whether held was reached against a drop, and against a rise
    chance[0, 0, 0, 0] = 1
    shares, mean = dict.fromkeys(("regressed", "suspicious", "held"), 0.0), 0.0
    for at in range(1, n + 1):
        mean += chance.sum()
        after = chance * (1 - lost - gained)
        after[:, :, 1:] += lost * chance[:, :, :-1]
        after[..., 1:] += gained * chance[..., :-1]
        for name, decided in (("regressed", alarm), ("suspicious", strange)):
            shares[name] += after[..., decided].sum()
            after[..., decided] = 0
        for axis, first in enumerate(holds):
            reached, waiting = (np.moveaxis(after, axis, 0)[way] for way in (1, 0))
            reached += np.where(at >= first, waiting, 0)
            waiting[:, at >= first] = 0
        shares["held"] += after[1, 1].sum()
        after[1, 1] = 0
        chance = after
    assert chance.sum() + sum(shares.values()) == pytest.approx(1, abs=1e-8)
    return Chances(**shares, undecided=chance.sum(), mean=mean)


def first_held(losses, gains, n, margin):
    """After how many samples the wealth suffices for each pair of counts (n + 1: not by n); it grows with samples alone."""
    low, high = np.maximum(losses + gains, 1), np.full(losses.shape, n + 1)
    while (low < high).any():
        middle = (low + high) // 2
        enough = (log_e_held(losses, gains, middle, margin) >= ENOUGH) | (middle > n)
        low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
    return np.minimum(high, n + 1)


def simulated(lost, gained, n, runs, seed, **given):
    rng = np.random.default_rng(seed)
    return [judged(drawn(rng, lost, gained, n), **given) for _ in range(runs)]


def noise(share, runs):
    return 4 * math.sqrt(max(share * (1 - share), 0.0025) / runs)


@pytest.mark.parametrize(
    ("lost", "gained", "given"),
    [
        (0.0, 0.0, {}),
        (0.0025, 0.0025, {}),
        (0.025, 0.005, {"tests": 5}),
        (0.01, 0.01, {"both_ways": True}),
        (0.01, 0.03, {"both_ways": True}),
        (0.02, 0.02, {"tests": 2, "both_ways": True, "margin": 0.04}),
    ],
)
def test_simulated_walks_end_as_the_enumeration_says(lost, gained, given):
    runs, n = 250, 600
    expected = enumerated(lost, gained, n, **given)
    walks = simulated(lost, gained, n, runs, 0, **given)
    for verdict in ("regressed", "suspicious", "held", None):
        share = getattr(expected, verdict or "undecided")
        assert sum(found.verdict == verdict for found in walks) / runs == pytest.approx(share, abs=noise(share, runs))
    places = np.array([found.at for found in walks])
    assert places.mean() == pytest.approx(expected.mean, abs=4 * places.std() / math.sqrt(runs) + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "gained"),
    [(0.0, 0.0), (0.0025, 0.0025), (0.005, 0.005), (0.025, 0.005), (0.11, 0.01), (0.04, 0.02), (0.05, 0.05)],
)
@pytest.mark.parametrize("both_ways", [False, True])
def test_2000_simulated_walks_of_2000_samples_end_as_the_enumeration_says(lost, gained, both_ways):
    runs, n = 2000, 2000
    expected = enumerated(lost, gained, n, both_ways=both_ways)
    verdicts = [found.verdict for found in simulated(lost, gained, n, runs, 1, both_ways=both_ways)]
    for verdict in ("regressed", "suspicious", "held", None):
        share = getattr(expected, verdict or "undecided")
        assert verdicts.count(verdict) / runs == pytest.approx(share, abs=noise(share, runs))


def ever_alarmed(flips, tests):
    """The chance that the e-value of a drop reaches tests / alpha at any of so many flips, each a loss as likely as a gain."""
    chance, alarmed = np.ones(1), 0.0
    for n in range(1, flips + 1):
        chance = np.convolve(chance, [0.5, 0.5])
        lost = np.arange(n + 1)
        alarm = log_e_drop(lost, n - lost) >= math.log(tests / ALPHA)
        alarmed += chance[alarm].sum()
        chance[alarm] = 0
    return alarmed


@pytest.mark.parametrize(("cells", "flips"), [(1, 2000), (5, 1000)])
def test_the_chance_that_a_cell_without_a_drop_is_ever_called_regressed_stays_below_its_share_of_alpha(cells, flips):
    chance = ever_alarmed(flips, cells)
    assert 0.7 * ALPHA / cells < chance < ALPHA / cells
    assert 1 - (1 - chance) ** cells < ALPHA


def family_alarms(flips, families, seed, n=2000, cells=5):
    """The share of families with a cell that is called regressed, flips being equally likely either way."""
    rng = np.random.default_rng(seed)
    return np.mean(
        [
            any(judged(drawn(rng, flips, flips, n), tests=cells).verdict == "regressed" for _ in range(cells))
            for _ in range(families)
        ]
    )


@pytest.mark.parametrize("flips", [0.0, 0.01, 0.05])
def test_of_five_unchanged_models_any_is_regressed_in_at_most_alpha_of_simulated_families(flips):
    assert family_alarms(flips, 60, seed=2) <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 60)


@pytest.mark.slow
@pytest.mark.parametrize("flips", [0.0025, 0.01, 0.05])
def test_of_five_unchanged_models_any_is_regressed_in_at_most_alpha_of_2000_simulated_families(flips):
    assert family_alarms(flips, 2000, seed=3) <= ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / 2000)


NEVER = 10**12
"""So many tests that nothing is called regressed or suspicious before it could be held wrongly."""


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("gained", [0.0, 0.0005, 0.0025, 0.01])
def test_the_chance_that_a_drop_of_the_margin_is_ever_held_stays_below_alpha(gained, both_ways):
    chance = enumerated(gained + MARGIN, gained, 2000, tests=NEVER, both_ways=both_ways).held
    assert 0.7 * ALPHA < chance < ALPHA


@pytest.mark.slow
@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("gained", [0.02, 0.05])
def test_the_chance_that_a_drop_of_the_margin_is_ever_held_stays_below_alpha_where_flips_are_many(gained, both_ways):
    assert 0 < enumerated(gained + MARGIN, gained, 2000, tests=NEVER, both_ways=both_ways).held < ALPHA


@pytest.mark.parametrize("lost", [0.0, 0.0025])
def test_with_the_baselines_weights_a_rise_of_the_margin_is_held_as_rarely(lost):
    assert enumerated(lost, lost + MARGIN, 2000, tests=NEVER, both_ways=True).held < ALPHA
    assert enumerated(lost, lost + MARGIN, 2000, tests=NEVER).held > 0.999


@pytest.mark.parametrize(
    ("lost", "gained", "n", "regressed", "held", "mean"),
    [
        (0.0, 0.0, 797, 0.0, 1.0, 180),
        (0.0025, 0.0025, 797, 0.001, 0.999, 230),
        (0.005, 0.005, 797, 0.005, 0.980, 286),
        (0.01, 0.01, 797, 0.014, 0.851, 393),
        (0.025, 0.005, 797, 0.824, 0.041, 444),
        (0.025, 0.005, 1000, 0.892, 0.042, 464),
        (0.025, 0.005, 2000, 0.956, 0.044, 480),
        (0.11, 0.01, 797, 1.0, 0.0, 83),
        (0.1, 0.0, 797, 1.0, 0.0, 70),
    ],
)
def test_power_and_cost_are_as_stated(lost, gained, n, regressed, held, mean):
    found = enumerated(lost, gained, n)
    assert (found.regressed, found.held) == pytest.approx((regressed, held), abs=0.0006)
    assert found.mean == pytest.approx(mean, abs=0.6)


@pytest.mark.parametrize(
    ("lost", "gained", "given", "mean"),
    [
        (0.0025, 0.0025, {"both_ways": True}, 292),
        (0.005, 0.005, {"both_ways": True}, 398),
        (0.025, 0.005, {"tests": 5}, 577),
        (0.11, 0.01, {"tests": 5}, 114),
    ],
)
def test_more_cells_and_the_baselines_weights_cost_what_is_stated(lost, gained, given, mean):
    assert enumerated(lost, gained, 797, **given).mean == pytest.approx(mean, abs=0.6)
