"""Output defenses: what they give out, beside ART's results, and how they mask gradients."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from gauntlet.attacks.ops.random import Draws, model_randomness, sample_keys
from gauntlet.bench.registries import DEFENSES
from gauntlet.defenses.pipeline.defended_model import defend

POSTPROCESSORS = {
    "reverse_sigmoid": ("ReverseSigmoid", {"beta": 1.5, "gamma": 0.2}),
    "rounded": ("Rounded", {"decimals": 2}),
    "high_confidence": ("HighConfidence", {"cutoff": 0.3}),
}


def logits(scale, count=50, classes=6, dtype=torch.float64):
    drawn = torch.randn(count, classes, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (scale * drawn).to(dtype)


def art(name):
    return getattr(importlib.import_module("art.defences.postprocessor"), name)


@pytest.mark.parametrize("name", sorted(POSTPROCESSORS))
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_an_output_defense_gives_what_art_makes_of_the_softmax(name, scale):
    kind, settings = POSTPROCESSORS[name]
    given = logits(scale)
    expected = art(kind)(**settings)(given.softmax(1).numpy())
    out = DEFENSES.get(name).make(**settings)(given)
    torch.testing.assert_close(out, torch.from_numpy(expected), rtol=1e-12, atol=1e-12)
    in_float32 = DEFENSES.get(name).make(**settings)(given.float())
    assert in_float32.dtype == torch.float32
    near = art(kind)(**settings)(given.float().double().softmax(1).numpy())
    torch.testing.assert_close(in_float32.double(), torch.from_numpy(near), rtol=1e-6, atol=1e-6)


def test_class_labels_give_a_row_its_own_class_where_art_gives_it_those_of_the_whole_batch():
    given = logits(3.0)
    out = DEFENSES.get("class_labels").make()(given)
    assert torch.equal(out, functional.one_hot(given.argmax(1), 6).double())
    one_by_one = torch.cat([torch.from_numpy(art("ClassLabels")()(row[None].softmax(1).numpy())) for row in given])
    assert torch.equal(out, one_by_one)
    together = art("ClassLabels")()(given.softmax(1).numpy())
    assert (together.sum(1) == 6).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "name", ["class_labels", "high_confidence", "output_noise", "reverse_sigmoid", "rounded", "scaled"]
)
def test_certain_and_tied_logits_give_finite_outputs_and_finite_gradients(name, dtype):
    given = torch.tensor([[1e4, 0, -1e4], [0, 0, 0], [-80, 80, 0], [17, 0, 0]], dtype=dtype).requires_grad_()
    out = DEFENSES.get(name).make()(given)
    assert out.dtype == dtype
    assert out.isfinite().all()
    if out.requires_grad:
        (gradient,) = torch.autograd.grad(out.square().sum(), given)
        assert gradient.isfinite().all()


def test_a_defense_that_changes_confidence_only_keeps_the_prediction():
    given = logits(4.0, count=300)
    for name in ("class_labels", "reverse_sigmoid", "scaled"):
        assert torch.equal(DEFENSES.get(name).make()(given).argmax(1), given.argmax(1))


def test_where_nothing_is_left_the_first_class_is_predicted():
    flat = torch.zeros(1, 6)
    flat[0, 4] = 0.01
    for name, settings in (("rounded", {"decimals": 1}), ("high_confidence", {"cutoff": 0.9})):
        out = DEFENSES.get(name).make(**settings)(flat)
        assert (out == out[0, 0]).all()
        assert out.argmax(1).item() == 0


def test_output_noise_has_the_scale_that_was_asked_for_and_leaves_probabilities():
    noise, given = DEFENSES.get("output_noise").make(scale=0.02), torch.zeros(4000, 4, dtype=torch.float64)
    with model_randomness(Draws.start(sample_keys(0, "test", [str(index) for index in range(4000)]))):
        out = noise(given)
    assert (out >= 0).all()
    torch.testing.assert_close(out.sum(1), torch.ones(4000, dtype=torch.float64))
    # The sum that is divided by varies too: that of four entries about 1.
    expected = 0.02 * np.sqrt(1 - 2 / 4 + 4 / 16)
    assert out[:, 0].std().item() == pytest.approx(expected, rel=0.05)
    with model_randomness(Draws.start(sample_keys(0, "test", [str(index) for index in range(4000)]))):
        drowned = DEFENSES.get("output_noise").make(scale=50.0)(given)
    assert drowned.isfinite().all()
    assert (drowned.sum(1) == 0).any()


class Sure(nn.Module):
    """Two classes by the sign of the mean, with logits up to ±20."""

    def forward(self, images):
        score = 40 * (images.flatten(1).mean(1) - 0.5)
        return torch.stack([-score, score], dim=1)


@pytest.mark.parametrize(
    ("name", "vanishes"), [("scaled", True), ("rounded", True), ("class_labels", True), ("none", False)]
)
def test_the_gradient_of_the_cross_entropy_vanishes_behind_an_output_defense_and_not_beneath_it(name, vanishes):
    defended = defend(Sure().eval(), DEFENSES.get(name))
    images = 0.7 + 0.2 * torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.ones(8, dtype=torch.int64)

    def gradient(model):
        point = images.clone().requires_grad_()
        loss = functional.cross_entropy(model(point), labels, reduction="sum")
        if not loss.requires_grad:
            return torch.zeros_like(images)
        return torch.autograd.grad(loss, point)[0]

    assert (gradient(defended).abs().amax() == 0).item() is vanishes
    if vanishes:
        assert (gradient(defended.beneath).flatten(1).abs().amax(1) > 0).all()


def test_reverse_sigmoid_turns_the_slope_of_confident_answers_around():
    sure = torch.linspace(5, 15, 50, dtype=torch.float64)
    given = torch.stack([sure, torch.zeros_like(sure)], dim=1).requires_grad_()
    out = DEFENSES.get("reverse_sigmoid").make()(given)
    (gradient,) = torch.autograd.grad(out[:, 0].sum(), given)
    # The more certain the model is, the less certain it looks.
    assert (gradient[:, 0] < 0).all()
    assert (out[:, 0] > out[:, 1]).all()
