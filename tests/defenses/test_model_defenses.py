"""Defenses around the model: ensembles, detectors, and the anti-adversary layer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from gauntlet.attacks.views.rejection_view import reduced
from gauntlet.bench.registries import DEFENSES
from gauntlet.defenses.ensemble import EnsembleModel
from gauntlet.defenses.pipeline.defended_model import defend
from gauntlet.defenses.pipeline.detector import DetectorModel


class Linear(nn.Module):
    """Logits x · weights, of images of 4 by 4 pixels, by default of three classes."""

    def __init__(self, classes=3, seed=0):
        super().__init__()
        drawn = torch.randn(16, classes, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(drawn)

    def forward(self, images):
        return (images - 0.5).flatten(1) @ self.weight.to(images)


def images(count=20, seed=0, dtype=torch.float32):
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def wrapped(name, model, **settings):
    return DEFENSES.get(name).make(**settings)(model.eval())


def test_an_ensemble_combines_logits_probabilities_or_votes():
    members, given = [Linear(seed=seed).eval() for seed in range(3)], images()
    outputs = torch.stack([member(given) for member in members])
    torch.testing.assert_close(EnsembleModel(members)(given), outputs.mean(0))
    torch.testing.assert_close(EnsembleModel(members, "probabilities")(given).exp(), outputs.softmax(2).mean(0))
    votes = EnsembleModel(members, "votes")(given)
    assert torch.equal(votes, functional.one_hot(outputs.argmax(2), 3).sum(0).float())
    assert (votes.sum(1) == 3).all()


def test_an_ensemble_of_votes_has_a_view_with_a_gradient_and_the_others_are_their_own():
    members = [Linear(seed=seed).eval() for seed in range(3)]
    assert not EnsembleModel(members, "votes")(images()).requires_grad
    view = EnsembleModel(members, "votes").attack_view()
    assert view(images()).requires_grad
    assert not view.training
    own = EnsembleModel(members, "logits")
    assert own.attack_view() is own


def test_an_ensemble_without_members_or_with_an_unknown_combination_is_refused():
    with pytest.raises(ValueError, match="members is empty"):
        EnsembleModel([])
    with pytest.raises(ValueError, match="combine='median'"):
        EnsembleModel([Linear()], "median")


def test_the_views_of_one_model_are_its_image_shifted_with_its_border_and_mirrored():
    class Picture(nn.Module):
        def forward(self, x):
            return x.flatten(1)

    given = torch.arange(12.0).view(1, 1, 3, 4)
    own, up, down, left, right = (view(given).view(3, 4) for view in wrapped("ensemble", Picture()).members)
    picture = given[0, 0]
    assert torch.equal(own, picture)
    assert torch.equal(up, picture[[1, 2, 2]])
    assert torch.equal(down, picture[[0, 0, 1]])
    assert torch.equal(left, picture[:, [1, 2, 3, 3]])
    assert torch.equal(right, picture[:, [0, 0, 1, 2]])
    mirrored = wrapped("ensemble", Picture(), shift=0, flip=True).members
    assert [torch.equal(view(given), x.flatten(1)) for view, x in zip(mirrored, (given, given.flip(3)), strict=True)]
    assert len(wrapped("ensemble", Picture(), flip=True).members) == 10
    assert torch.equal(mirrored[1](given).view(3, 4), picture.flip(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("excess", [-3.0, -1e-12, 0.0, 1e-12, 3.0])
def test_the_last_output_of_a_detector_is_the_largest_exactly_where_the_score_reaches_the_threshold(dtype, excess):
    class Loud(nn.Module):
        def forward(self, x):
            return 1e4 * x.flatten(1)

    def score(model, x, logits):
        return torch.full((len(x),), 0.5 + excess, dtype=torch.float64)

    detected = DetectorModel(Loud().eval(), score, 0.5)
    out = detected(images(dtype=dtype))
    assert out.dtype == dtype
    reached = torch.full((20,), 0.5 + excess, dtype=torch.float64).to(dtype) >= 0.5
    assert torch.equal(out[:, -1] > out[:, :-1].amax(1), reached)
    assert torch.equal(out.argmax(1) == 16, reached)


def test_an_attack_must_change_the_class_and_pass_the_detector():
    outputs = torch.tensor([[1.0, 2.0, 0.0], [1.0, 2.0, 3.0], [3.0, 2.0, 0.0]])
    labels = torch.tensor([0, 0, 0])
    assert (reduced(outputs, labels).argmax(1) != labels).tolist() == [True, False, False]


def test_the_confidence_detector_rejects_where_the_largest_probability_is_small():
    model, given = Linear(), images(200)
    detected = wrapped("confidence_detector", model, confidence=0.7)
    unsure = model(given).softmax(1).amax(1) <= 0.7
    assert 20 < unsure.sum() < 180
    out = detected(given)
    assert torch.equal(out.argmax(1) == 3, unsure)
    assert torch.equal(out[:, :3], model(given))


def test_the_confidence_detector_has_a_gradient_where_the_softmax_saturates():
    given = images().requires_grad_()

    class Sure(Linear):
        def forward(self, x):
            return 5 * super().forward(x)

    rejection = wrapped("confidence_detector", Sure())(given)[:, -1]
    (gradient,) = torch.autograd.grad(rejection.sum(), given)
    assert (gradient.flatten(1).abs().amax(1) > 0).all()


def test_the_squeeze_detector_measures_how_far_squeezing_moves_the_probabilities():
    model, given = Linear(), images(100)
    squeezers = [DEFENSES.get("bit_depth").make(bits=1), DEFENSES.get("median").make(window=2)]
    moved = torch.stack([(model(one(given)).softmax(1) - model(given).softmax(1)).abs().sum(1) for one in squeezers])
    suspicious = moved.amax(0) >= 0.8
    assert 10 < suspicious.sum() < 90
    detected = wrapped("squeeze_detector", model, bits=1, window=2, threshold=0.8)
    assert torch.equal(detected(given).argmax(1) == 3, suspicious)
    alone = wrapped("squeeze_detector", model, bits=1, window=1, threshold=0.8)
    assert torch.equal(alone(given).argmax(1) == 3, moved[0] >= 0.8)


def test_the_view_of_the_squeeze_detector_gives_the_same_outputs_and_sees_the_squeezed_image():
    model = Linear()
    defended = defend(model.eval(), DEFENSES.get("squeeze_detector"), {"window": 3})
    given = images().requires_grad_()
    view = defended.attack_view()
    assert torch.equal(view(given), defended(given))

    def gradient(one):
        (found,) = torch.autograd.grad(one(given)[:, -1].sum(), given)
        return found

    assert not torch.allclose(gradient(view), gradient(defended))


def test_the_anti_adversary_makes_the_model_more_certain_of_what_it_predicts():
    model, given = Linear(), images(100)
    before, after = model(given), wrapped("purify", model, steps=1, step_size=0.1)(given)
    assert torch.equal(before.argmax(1), after.argmax(1))
    assert (after.softmax(1).amax(1) > before.softmax(1).amax(1)).all()
    # A linear model of two classes: one signed step adds its size times the L1 norm of the weights' difference.
    two = Linear(classes=2)
    gap = (two.weight[:, 0] - two.weight[:, 1]).detach()
    logits = wrapped("purify", two, steps=3, step_size=0.1)(given)
    own = two(given)
    grown = (logits[:, 0] - logits[:, 1]).abs() - (own[:, 0] - own[:, 1]).abs()
    torch.testing.assert_close(grown, torch.full((100,), 0.3 * gap.abs().sum().item()))


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_anti_adversary_works_in_every_gradient_mode_and_touches_no_parameter(context):
    model, given = Linear(), images()
    expected = wrapped("purify", model)(given).detach()
    with context():
        out = wrapped("purify", model)(given.clone())
        assert torch.equal(out, expected)
        assert out.requires_grad is (context is torch.enable_grad)
    assert model.weight.grad is None


def test_autograd_gives_the_true_gradient_of_the_anti_adversary():
    model, point = Linear().double(), images(1, dtype=torch.float64)
    purified = wrapped("purify", model)
    assert torch.autograd.gradcheck(lambda x: purified(x), point.requires_grad_())
    assert DEFENSES.get("purify").card.test_time_gradient


@pytest.mark.parametrize("name", ["ensemble", "purify", "confidence_detector", "squeeze_detector", "smoothing"])
def test_a_defense_around_a_model_follows_its_mode_and_shares_its_parameters(name):
    model = Linear()
    for mode in (True, False):
        defended = defend(model.train(mode), DEFENSES.get(name))
        assert defended.training is mode
        assert defended.model.training is mode
    assert {id(one) for one in defended.parameters()} == {id(model.weight)}
    assert defended.twin is model
    assert math.prod(defended(images()).shape) == 20 * (3 + DEFENSES.get(name).card.rejects)
