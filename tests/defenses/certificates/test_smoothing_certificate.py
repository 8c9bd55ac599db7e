"""The certificate of randomized smoothing against closed forms, and its coverage."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binom, norm

from gauntlet.defenses.certificates.smoothing_certificate import (
    ABSTAIN,
    certified_radius,
    certify_counts,
    probability_bound,
)

SIGMA, ALPHA = 0.25, 0.001


def test_the_bound_is_the_probability_under_which_so_many_successes_have_the_chance_alpha():
    count = torch.tensor([1, 7, 60, 99, 100])
    lower = probability_bound(count, 100, ALPHA)
    chances = binom.sf(count.numpy() - 1, 100, lower.numpy())
    assert chances == pytest.approx([ALPHA] * 5, rel=1e-6)


def test_no_success_bounds_nothing_and_only_successes_have_the_closed_form():
    lower = probability_bound(torch.tensor([0, 50]), 50, ALPHA)
    assert lower.tolist() == pytest.approx([0.0, ALPHA ** (1 / 50)])


def test_more_votes_give_a_larger_radius_and_half_of_them_none():
    radius = certified_radius(torch.arange(0, 1001), 1000, SIGMA, ALPHA)
    assert radius.dtype == torch.float64
    assert (radius[:501] == 0).all()
    assert (radius.diff() >= 0).all()
    assert radius[-1] == pytest.approx(SIGMA * norm.ppf(ALPHA ** (1 / 1000)))
    assert radius.isfinite().all()


def test_the_radius_of_a_linear_classifier_exceeds_the_true_distance_no_more_often_than_alpha_allows():
    # Smoothing a linear classifier does not move its boundary: the distance is known, and so is the class's probability.
    generator = torch.Generator().manual_seed(0)
    alpha, n, repeats = 0.05, 200, 4000
    for distance in (0.02, 0.1, 0.3):
        probability = float(norm.cdf(distance / SIGMA))
        count = (torch.rand(repeats, n, generator=generator) < probability).sum(1)
        radius = certified_radius(count, n, SIGMA, alpha)
        wrong = int((radius > distance).sum())
        assert wrong <= binom.ppf(1 - 1e-6, repeats, alpha)
        assert (radius > 0).double().mean() > (0.01 if distance < 0.05 else 0.9 if distance > 0.2 else 0.3)
    assert radius.mean() > 0.6 * distance


def test_votes_of_a_linear_classifier_certify_no_more_than_its_distance():
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(3, 20, generator=generator)
    images = torch.rand(40, 20, generator=generator)
    label = (images @ weight.T).argmax(1)

    def votes(n):
        noisy = images[:, None] + SIGMA * torch.randn(40, n, 20, generator=generator)
        return torch.nn.functional.one_hot((noisy @ weight.T).argmax(2), 3).sum(1)

    prediction, radius = certify_counts(votes(100), votes(2000), sigma=SIGMA, alpha=ALPHA)
    gap = (images @ weight.T).gather(1, label[:, None]) - images @ weight.T
    apart = torch.linalg.vector_norm(weight[label][:, None] - weight, dim=2)
    # The chance to win against all classes is at most that against the nearest one.
    distance = (gap / apart).scatter(1, label[:, None], torch.inf).amin(1)
    certain = (prediction == label) & (radius > 0)
    assert certain.sum() > 20
    assert (radius[certain] <= distance[certain]).all()


def test_the_class_comes_from_the_selection_and_its_bound_from_the_estimation():
    selection = torch.tensor([[9, 1, 0], [1, 9, 0], [5, 5, 0]])
    estimation = torch.tensor([[990, 10, 0], [990, 10, 0], [990, 10, 0]])
    prediction, radius = certify_counts(selection, estimation, sigma=SIGMA, alpha=ALPHA)
    assert prediction.tolist() == [0, ABSTAIN, 0]
    assert radius[1] == 0
    assert radius[0] == radius[2] == certified_radius(torch.tensor([990]), 1000, SIGMA, ALPHA)


def test_no_samples_have_no_radii():
    empty = torch.zeros(0, 4, dtype=torch.int64)
    prediction, radius = certify_counts(empty, empty, sigma=SIGMA, alpha=ALPHA)
    assert prediction.shape == radius.shape == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, "sigma=0.0"),
        ({"sigma": float("nan")}, "sigma=nan"),
        ({"alpha": 0.0}, "alpha=0.0"),
        ({"alpha": 1.0}, "alpha=1.0"),
        ({"n": 0}, "n=0"),
        ({"n": 10.0}, "n=10.0"),
        ({"count_top": torch.tensor([11])}, "contains 11"),
        ({"count_top": torch.tensor([-1])}, "contains -1"),
        ({"count_top": torch.tensor([1.0])}, "whole numbers"),
        ({"count_top": torch.tensor([[1]])}, "shape"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(change, message):
    arguments = {"count_top": torch.tensor([9]), "n": 10, "sigma": SIGMA, "alpha": ALPHA} | change
    with pytest.raises(ValueError, match=message):
        certified_radius(**arguments)


@pytest.mark.parametrize(
    ("selection", "estimation", "message"),
    [
        ([[1, 2]], [[1, 2, 0]], "shape"),
        ([[1, 2], [2, 2]], [[1, 2], [1, 2]], "selection has rows of 3 to 4 draws"),
        ([[1, 2]], [[-1, 2]], "estimation must hold counts"),
        ([1, 2], [1, 2], "selection must hold counts"),
        ([[0.5, 2.5]], [[1, 2]], "selection has dtype"),
    ],
)
def test_votes_that_cannot_be_are_refused(selection, estimation, message):
    with pytest.raises(ValueError, match=message):
        certify_counts(torch.tensor(selection), torch.tensor(estimation), sigma=SIGMA, alpha=ALPHA)
