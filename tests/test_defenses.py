"""Defenses at inference: what they do to images, and what gradient attacks see of them."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from gauntlet.attacks.random import Draws, model_randomness, sample_keys
from gauntlet.defenses.bpda import straight_through
from gauntlet.defenses.catalog import DEFENSES
from gauntlet.defenses.defended import DefendedModel, is_differentiable, is_randomised

NAMES = sorted(DEFENSES)
ART = {
    "bit_depth": ("FeatureSqueezing", {"bit_depth": 3, "clip_values": (0, 1)}),
    "jpeg": ("JpegCompression", {"quality": 50, "clip_values": (0, 1.0), "channels_first": True}),
    "median": ("SpatialSmoothing", {"window_size": 3, "channels_first": True}),
}


def entry(name):
    module, _, attribute = DEFENSES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def images(shape, dtype=torch.float32, seed=0):
    picture = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    picture[0, 0, 0, 0], picture[0, 0, -1, -1] = 0, 1
    return picture.to(dtype)


def keyed(ids, step=0, seed=0):
    draws = Draws.start(sample_keys(seed, "test", ids))
    return model_randomness(draws.at(step=torch.full_like(draws.step, step)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (3, 3, 7, 5), (1, 3, 32, 32), (2, 2, 9, 1), (0, 1, 8, 8)])
def test_a_defense_keeps_shape_dtype_range_and_its_input(name, dtype, shape):
    before = images(shape, dtype) if shape[0] else torch.zeros(shape, dtype=dtype)
    given = before.clone()
    out = entry(name).make()(given)
    assert (out.shape, out.dtype, out.device) == (given.shape, dtype, given.device)
    assert torch.equal(given, before)
    if shape[0]:
        assert out.min() >= 0
        assert out.max() <= 1
        out.add_(1) if name != "none" else None
        assert torch.equal(given, before)


@pytest.mark.parametrize("name", sorted(ART))
@pytest.mark.parametrize("channels", [1, 3])
def test_a_defense_gives_what_art_gives(name, channels):
    kind, settings = ART[name]
    given = images((4, channels, 11, 8))
    expected, _ = getattr(importlib.import_module("art.defences.preprocessor"), kind)(**settings)(given.numpy())
    out = entry(name).make()(given)
    assert torch.equal(out, torch.from_numpy(expected.astype(np.float32)))
    assert not torch.equal(out, given)


def test_bit_depth_leaves_the_levels_that_were_asked_for():
    out = entry("bit_depth").make(bits=2)(images((5, 1, 16, 16), torch.float64))
    torch.testing.assert_close(out.unique(), torch.tensor([0, 1 / 3, 2 / 3, 1], dtype=torch.float64))


def test_the_median_of_one_channel_ignores_the_others_and_drops_a_lone_pixel():
    given = torch.zeros(2, 3, 6, 6)
    given[1] = 1
    given[0, 1, 3, 3] = 1
    out = entry("median").make()(given)
    assert out[0].max() == 0
    assert out[1].min() == 1


def test_jpeg_loses_more_at_a_lower_quality_and_takes_values_just_outside_the_box():
    smooth = torch.linspace(0, 1, 32).expand(1, 3, 32, 32) * torch.linspace(0.2, 1, 32)[:, None]
    loss = [(entry("jpeg").make(quality=q)(smooth) - smooth).abs().mean().item() for q in (95, 50, 5)]
    assert loss[0] < loss[1] < loss[2]
    jpeg = entry("jpeg").make()
    assert torch.equal(jpeg(torch.full((1, 1, 8, 8), 1 + 1e-2)), jpeg(torch.ones(1, 1, 8, 8)))


def test_noise_has_the_standard_deviation_that_was_asked_for():
    out = entry("input_noise").make(sigma=0.05)(torch.full((1, 1, 200, 200), 0.5))
    assert out.std().item() == pytest.approx(0.05, rel=0.03)
    assert out.mean().item() == pytest.approx(0.5, abs=1e-3)


def test_noise_under_draws_is_a_function_of_the_sample_and_the_step_alone():
    noise, given = entry("input_noise").make(), images((3, 1, 6, 6))
    with keyed(["a", "b", "c"]):
        together, again = noise(given), noise(given)
    with keyed(["c"]):
        alone = noise(given[2:])
    with keyed(["a", "b", "c"], step=1):
        later = noise(given)
    assert torch.equal(together, again)
    assert torch.equal(together[2:], alone)
    assert not torch.equal(together, later)
    with keyed(["a", "b"]), pytest.raises(ValueError, match="2 samples do not fit 3 images"):
        noise(given)


def test_noise_without_draws_comes_from_the_global_generator():
    noise, given = entry("input_noise").make(), images((1, 1, 6, 6))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first, second = noise(given), noise(given)
        torch.manual_seed(1)
        assert torch.equal(noise(given), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_measured_of_a_defense_is_what_its_card_says(name):
    defense, card = entry(name).make(), entry(name).card
    state = torch.get_rng_state()
    with keyed(["other"]):
        assert is_differentiable(defense, images((20, 1, 8, 8))) is card.differentiable
        assert is_randomised(defense, images((20, 1, 8, 8))) is card.randomised
    assert torch.equal(torch.get_rng_state(), state)


class Changed(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x):
        return self.change(x)


@pytest.mark.parametrize(
    ("change", "differentiable", "randomised"),
    [
        (lambda x: (x * 7).round() / 7, False, False),
        (lambda x: x.detach() * 0.5, False, False),
        (lambda x: torch.from_numpy(x.numpy() ** 2), False, False),
        (lambda x: x.sqrt() * (x - x).sqrt(), False, False),
        (lambda x: (x > 0.5).to(torch.int64), False, False),
        (lambda x: x**2, True, False),
        (lambda x: x.flip(-1) if torch.rand(()) < 0.5 else x, True, True),
        (lambda x: x + 0.1 * torch.from_numpy(np.random.rand(*x.shape)).to(x), True, True),
    ],
    ids=["rounding", "detached", "numpy", "not finite", "integers", "square", "coin", "numpy noise"],
)
def test_an_undeclared_defense_is_measured(change, differentiable, randomised):
    given = images((4, 1, 6, 6))
    assert is_differentiable(Changed(change), given) is differentiable
    assert is_randomised(Changed(change), given) is randomised


def test_an_error_of_the_defense_itself_is_not_taken_for_a_missing_gradient():
    def broken(x):
        raise RuntimeError("no such codec")

    with pytest.raises(RuntimeError, match="no such codec"):
        is_differentiable(Changed(broken), images((2, 1, 4, 4)))
    with pytest.raises(ValueError, match="images is empty"):
        is_randomised(nn.Identity(), torch.zeros(0, 1, 4, 4))


@pytest.mark.parametrize("name", ["bit_depth", "jpeg", "median"])
def test_bpda_gives_the_gradient_of_the_model_at_the_transformed_image(name):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    transform, given = entry(name).make(), images((3, 1, 8, 8))
    defended = DefendedModel(model, transform, differentiable=False, randomised=False)
    point = given.clone().requires_grad_()
    logits = defended.attack_view()(point)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), point)
    at = transform(given).requires_grad_()
    (expected,) = torch.autograd.grad(model(at)[:, 0].sum(), at)
    assert torch.equal(logits, defended(given))
    assert torch.equal(gradient, expected)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_forward_pass_of_bpda_is_the_defense_bit_for_bit(name):
    transform, given = entry(name).make(), images((3, 3, 9, 9))
    with keyed(["a", "b", "c"]):
        out = straight_through(transform)(given.clone().requires_grad_())
        assert torch.equal(out, transform(given))
    assert out.requires_grad


def test_bpda_refuses_a_defense_that_changes_the_shape():
    with pytest.raises(ValueError, match="attack it without gradients"):
        straight_through(nn.AvgPool2d(2))(images((1, 1, 4, 4)))


def test_the_attack_view_of_a_differentiable_defense_is_the_model_itself():
    model = nn.Flatten()
    noisy = DefendedModel(model, entry("input_noise").make(), differentiable=True, randomised=True)
    assert noisy.attack_view() is noisy
    squeezed = DefendedModel(model, entry("bit_depth").make(), differentiable=False, randomised=False).eval()
    view = squeezed.attack_view()
    assert view is not squeezed
    assert not any(module.training for module in view.modules())
    assert is_differentiable(view, images((2, 1, 4, 4)))
    assert not is_differentiable(squeezed, images((2, 1, 4, 4)))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("bit_depth", {"bits": 0}, "bits=0"),
        ("bit_depth", {"bits": 2.5}, "bits=2.5"),
        ("jpeg", {"quality": 101}, "quality=101"),
        ("median", {"window": 0}, "window=0"),
        ("input_noise", {"sigma": -0.1}, "sigma=-0.1"),
        ("input_noise", {"sigma": math.nan}, "sigma=nan"),
        ("none", {"colour": 1}, "colour"),
        ("jpeg", {"colour": 1}, "colour"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_by_name(name, settings, message):
    with pytest.raises(ValueError, match=message):
        entry(name).make(**settings)


def test_images_without_a_batch_dimension_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 8, 8\)"):
        entry("median").make()(torch.rand(1, 8, 8))


def test_every_defense_bears_the_name_under_which_it_is_listed():
    assert [entry(name).card.name for name in DEFENSES] == list(DEFENSES)


def test_listing_the_defenses_imports_neither_torch_nor_art():
    code = "import sys, gauntlet.defenses.catalog as c; print(*({'torch', 'art', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
