"""Randomized smoothing: votes, abstention, certificate, and what gradient attacks see."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import nn

from gauntlet.attacks.ops.random import Draws, model_randomness, sample_keys
from gauntlet.bench.registries import DEFENSES


class Halfspace(nn.Module):
    """Class 1 where the mean pixel is above one half: the smoothed model is known in closed form."""

    def forward(self, images):
        score = images.flatten(1).mean(1) - 0.5
        return torch.stack([-score, score, torch.full_like(score, -1e3)], dim=1)


def smoothed(model=None, **settings):
    return DEFENSES.get("smoothing").make(**settings)(model or Halfspace().eval())


def at(distances):
    """Images of 4 by 4 pixels at these L2 distances from the boundary, on the side of class 1."""
    return torch.stack([torch.full((1, 4, 4), 0.5 + one / 4) for one in distances])


def keyed(count, seed=0):
    return model_randomness(Draws.start(sample_keys(seed, "test", [str(index) for index in range(count)])))


def test_votes_come_in_the_shares_that_the_normal_distribution_gives():
    distances = [0.0, 0.1, 0.25, 0.5]
    with keyed(4):
        votes = smoothed(n=4000)(at(distances))[:, :3]
    assert (votes.sum(1) == 4000).all()
    expected = [stats.norm.cdf(one / 0.25) for one in distances]
    assert (votes[:, 1] / 4000).tolist() == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(4000))


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.5])
@pytest.mark.parametrize("n", [1, 7, 100])
def test_it_abstains_exactly_where_the_binomial_test_does(n, alpha):
    class Votes(nn.Module):
        """Predicts class 1 for the first `ones` copies, class 0 for the next `zeros`, class 2 for the rest."""

        def forward(self, images):
            labels = torch.full((len(images),), 2)
            labels[: self.ones + self.zeros] = 0
            labels[: self.ones] = 1
            return nn.functional.one_hot(labels, 3).float()

    model = Votes()
    for ones in range(0, n + 1, max(1, n // 10)):
        for zeros in range(0, n + 1 - ones, max(1, n // 7)):
            model.ones, model.zeros = ones, zeros
            counts = sorted([ones, zeros, n - ones - zeros])
            passed = bool(stats.binomtest(counts[2], counts[1] + counts[2], 0.5).pvalue <= alpha)
            out = smoothed(model.eval(), n=n, alpha=alpha)(torch.zeros(1, 1, 2, 2))[0]
            assert (out.argmax().item() != 3) is passed, (ones, zeros)
            assert out[-1] != out[:-1].max()


def test_what_it_says_of_a_sample_does_not_depend_on_its_batch_to_the_last_vote():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5)).eval()
    images = torch.rand(6, 1, 4, 4)
    draws = Draws.start(sample_keys(0, "test", list("abcdef")))
    with model_randomness(draws):
        together = smoothed(model)(images)
    for row in range(6):
        with model_randomness(Draws(*(part[row : row + 1] for part in (draws.keys, draws.restart, draws.step)))):
            assert torch.equal(smoothed(model)(images[row : row + 1]), together[row : row + 1])


def test_a_certified_radius_is_hardly_ever_larger_than_the_true_distance():
    distances = torch.linspace(0.02, 0.6, 120).tolist()
    with keyed(120):
        prediction, radius = smoothed(n=500, n0=50, alpha=0.01).certify(at(distances))
    assert (prediction.dtype, radius.dtype) == (torch.int64, torch.float64)
    given = prediction >= 0
    assert set(prediction[given].tolist()) <= {0, 1}
    assert torch.equal(radius > 0, given)
    too_large = (radius > torch.tensor(distances, dtype=torch.float64)).sum().item()
    assert too_large <= stats.binom.isf(1e-4, 120, 0.01)
    # Far from the boundary the certificate is near what these counts allow at most, close to it there is none.
    largest = 0.25 * stats.norm.ppf(0.01 ** (1 / 500))
    assert radius.max().item() == pytest.approx(largest, rel=0.15)
    assert not given[:2].all()


def test_the_view_of_attacks_is_the_mean_softmax_with_a_gradient_towards_the_boundary():
    module = smoothed(attack_draws=200)
    point = at([0.1, 0.3]).requires_grad_()
    with keyed(2):
        outputs = module.attack_view()(point)
    assert outputs.shape == (2, 4)
    torch.testing.assert_close(outputs[:, :3].exp().sum(1), torch.ones(2))
    (gradient,) = torch.autograd.grad(outputs[:, 1].sum(), point)
    assert (gradient.flatten(1).sum(1) > 0).all()
    # The model is soft here (its logits are small), so that the expected softmax is near one half.
    expected = torch.sigmoid(2 * (point.detach().flatten(1).mean(1) - 0.5))
    torch.testing.assert_close(outputs[:, 1].exp(), expected, atol=0.04, rtol=0)


def test_the_view_abstains_where_the_votes_would():
    class Hard(Halfspace):
        def forward(self, images):
            return 1e4 * super().forward(images)

    module = smoothed(Hard().eval(), n=200, attack_draws=200)
    images = at(torch.linspace(0, 0.4, 40).tolist())
    with keyed(40):
        votes, view = module(images).argmax(1), module.attack_view()(images).argmax(1)
    assert set(votes.tolist()) == {1, 3}
    assert (votes != view).sum() <= 6


def test_a_view_in_training_mode_stays_in_it_and_an_empty_batch_is_answered():
    module = smoothed()
    assert module.attack_view().training is module.training is False
    assert module(torch.zeros(0, 1, 4, 4)).shape == (0, 4)
    prediction, radius = module.certify(torch.zeros(0, 1, 4, 4))
    assert (prediction.shape, radius.shape) == ((0,), (0,))
