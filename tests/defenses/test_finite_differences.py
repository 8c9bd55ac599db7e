"""Gradients that are wrong are found at every scale; gradients of functions that bend or climb stairs are not accused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gauntlet
from builders import Wrapped, network, slow_unless
from gauntlet.attacks.ops.random import Draws, sample_keys
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.defenses.pipeline.finite_differences import Slice, judge_gradients, wrong_at_small_scales
from gauntlet.defenses.pipeline.profile import pass_over, pipeline_profile

COUNT = 24
STEPS = [("Linf", 0.25 / 255), ("Linf", 0.04), ("Linf", 0.08), ("L2", 0.05), ("L2", 0.5), ("L1", 1.0)]


def backward(rule):
    """The identity, with another gradient."""

    class Changed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.view_as(x)

        @staticmethod
        def backward(ctx, gradient):
            return rule(gradient, *ctx.saved_tensors)

    return Changed.apply


def digits(name="cnn.standard_digits"):
    return gauntlet.load_model(name).module


DATA = gauntlet.load_data("digits", samples=str(COUNT))
WRONG = {
    "negated": backward(lambda gradient, x: -gradient),
    "of another sample": backward(lambda gradient, x: gradient.roll(1, 0)),
    "upside down": backward(lambda gradient, x: gradient.flip(2)),
    "constant": backward(lambda gradient, x: torch.ones_like(x)),
    "noise": backward(lambda gradient, x: gradient.abs().mean() * (977 * x).sin()),
    "of another function": lambda x: (x - x.detach()) ** 2 + x.detach(),
}


def outputs(model, images, labels, number):
    return pass_over(model, images, number)


def keys(count=COUNT):
    return Draws.start(sample_keys(0, "test", [str(row) for row in range(count)]))


def judged(model, norm="Linf", length=0.04, count=COUNT):
    return judge_gradients(
        model, outputs, DATA.images[:count], DATA.labels[:count], keys(count), length=length, norm=norm
    )


@pytest.mark.parametrize(
    ("name", "norm", "length"),
    [
        # Each kind at two steps, which differ from kind to kind.
        slow_unless(name == "negated" or (norm, length) in STEPS[number % 3 :: 3], name, norm, length)
        for number, name in enumerate(WRONG)
        for norm, length in STEPS
    ],
)
def test_a_wrong_gradient_is_wrong_at_every_step_and_in_every_norm(name, norm, length):
    found = judged(Wrapped(digits(), WRONG[name]), norm, length)
    assert int(found.wrong.sum()) >= 0.8 * COUNT
    assert not (found.wrong & found.curved).any()


@pytest.mark.parametrize(
    "change",
    [slow_unless(False, lambda z: z), lambda z: 1e3 * z, slow_unless(False, lambda z: 1e-3 * z), lambda z: z + 1e5],
)
def test_scale_and_offset_of_the_logits_change_no_verdict(change):
    assert not judged(Wrapped(digits(), after=change)).wrong.any()
    assert not judged(Wrapped(digits(), after=change)).lost.any()
    assert judged(Wrapped(digits(), WRONG["negated"], change)).wrong.all()


def test_a_network_that_bends_between_small_steps_and_an_attack_is_curved_and_not_wrong():
    found = judged(digits("cnn.ibp_digits"), length=0.075)
    assert int(found.curved.sum()) >= 4
    assert not found.wrong.any()
    assert int(found.lost.sum()) <= 1


def test_the_maximum_of_equal_pixels_has_a_right_gradient():
    pooled = nn.Sequential(nn.MaxPool2d(2), network(16, 10)).eval()
    assert not judged(pooled).wrong.any()


@pytest.mark.parametrize("levels", [3, 7, 63])
@pytest.mark.parametrize("length", [0.25 / 255, 0.04])
def test_a_staircase_with_the_gradient_of_its_ramp_is_not_wrong(levels, length):
    stairs = Wrapped(digits(), lambda x: x + ((levels * x).round() / levels - x).detach())
    assert not judged(stairs, length=length).wrong.any()
    assert not wrong_somewhere(stairs)


def wrong_somewhere(model):
    pipeline = DefendedModel(model, differentiable=True, randomised=False).eval()
    return pipeline_profile(pipeline, DATA.images, DATA.labels).gradients == "wrong"


def shattered(net):
    """The label, with a ripple that has a gradient and says nothing."""

    def forward(x):
        label = nn.functional.one_hot(net(x).argmax(1), 10).to(x.dtype) * 10
        return label + torch.sin(x.flatten(1).sum(1, keepdim=True) * 1000 * torch.arange(1, 11)) * 1e-3

    return forward


def test_a_right_gradient_that_no_attack_can_follow_is_lost():
    found = judged(Wrapped(shattered(digits())))
    assert int(found.lost.sum()) >= 0.7 * COUNT
    assert not found.wrong.any()


def test_a_label_with_a_made_up_gradient_is_lost():
    net = digits()
    hard = Wrapped(lambda x: nn.functional.one_hot(net(x).argmax(1), 10) * 10.0 + (x - x.detach()).flatten(1)[:, :10])
    assert int(judged(hard).lost.sum()) >= 0.7 * COUNT


def test_a_model_that_computes_in_float32_only_is_judged_there():
    narrow = Wrapped(digits(), lambda x: x.float())
    assert not judged(narrow).wrong.any()
    assert not judged(narrow).lost.any()
    assert judged(Wrapped(narrow, WRONG["negated"])).wrong.all()


def test_of_a_constant_function_nothing_is_judged():
    found = judged(Wrapped(digits(), after=lambda z: 0 * z))
    assert found.far.isnan().all()
    assert not (found.wrong | found.curved | found.lost).any()
    assert judged(Wrapped(digits(), after=lambda z: z.detach())) is None


@pytest.mark.parametrize("name", ["negated", "of another sample"])
def test_the_profile_of_a_pipeline_names_a_wrong_gradient(name):
    assert wrong_somewhere(Wrapped(digits(), WRONG[name]))
    assert not wrong_somewhere(digits())


def test_the_model_and_the_global_generator_stay_as_they_were():
    model, before = Wrapped(digits("cnn.ibp_digits")), torch.get_rng_state()
    judged(model, length=0.075, count=8)
    assert torch.equal(before, torch.get_rng_state())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_small_scales_alone_are_enough_for_a_verdict():
    model, right = Wrapped(digits(), WRONG["negated"]), digits()
    base = (DATA.images + 0.003).clamp(0, 1)
    for one, wrong in ((model, True), (right, False)):
        verdict = wrong_at_small_scales(Slice.at(one, outputs, base, DATA.labels, 1), base, keys())
        assert bool(verdict.all()) == wrong
        assert bool(verdict.any()) == wrong
