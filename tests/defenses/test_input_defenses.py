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

from builders import linear
from gauntlet.attacks.ops.random import Draws, model_randomness, sample_keys
from gauntlet.defenses.pipeline.bpda import straight_through
from gauntlet.defenses.pipeline.catalog import DEFENSES
from gauntlet.defenses.pipeline.defended_model import DefendedModel, defend
from gauntlet.defenses.pipeline.profile import is_differentiable, is_randomised


def entry(name):
    module, _, attribute = DEFENSES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


NAMES = sorted(DEFENSES)
INPUTS = [name for name in NAMES if entry(name).card.kind == "input"]
OUTPUTS = [name for name in NAMES if entry(name).card.kind == "output"]
ART = {
    "bit_depth": ("FeatureSqueezing", {"bit_depth": 3, "clip_values": (0, 1)}),
    "jpeg": ("JpegCompression", {"quality": 50, "clip_values": (0, 1.0), "channels_first": True}),
    "median": ("SpatialSmoothing", {"window_size": 3, "channels_first": True}),
}
CLASSES = 4


def images(shape, dtype=torch.float32, seed=0):
    picture = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    picture[0, 0, 0, 0], picture[0, 0, -1, -1] = 0, 1
    return picture.to(dtype)


def keyed(ids, step=0, seed=0):
    draws = Draws.start(sample_keys(seed, "test", ids))
    return model_randomness(draws.at(step=torch.full_like(draws.step, step)))


def confident(shape, dtype=torch.float32):
    """A linear model of four classes that is sure of most images."""
    weight = torch.randn(CLASSES, math.prod(shape), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return linear(weight, dtype=dtype)


@pytest.mark.parametrize("name", INPUTS)
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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(0, 1, 8, 8), (1, 3, 32, 32), (5, 1, 8, 8), (2, 3, 9, 7)])
def test_a_defended_model_answers_every_batch_with_finite_scores_and_keeps_the_images(name, dtype, shape):
    model, card = confident(shape[1:], dtype), entry(name).card
    before = images(shape, dtype) if shape[0] else torch.zeros(shape, dtype=dtype)
    given = before.clone()
    defended = defend(model, entry(name)).eval()
    for one in (defended, defended.attack_view()):
        with torch.no_grad():
            out = one(given)
        assert out.shape == (shape[0], CLASSES + card.rejects)
        assert out.dtype == dtype
        assert out.isfinite().all()
        assert torch.equal(given, before)
    assert not any(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_defended_model_says_of_a_sample_the_same_in_any_batch_of_the_same_draws(name):
    defended, given = defend(confident((1, 8, 8)), entry(name)).eval(), images((5, 1, 8, 8))
    with torch.no_grad():
        with keyed(list("abcde"), step=3):
            together, again = defended(given), defended(given)
        with keyed(["d", "b"], step=3):
            others = defended(given[[3, 1]])
    assert torch.equal(together, again)
    torch.testing.assert_close(others, together[[3, 1]])
    assert torch.equal(others.argmax(1), together[[3, 1]].argmax(1))


@pytest.mark.parametrize("name", [name for name in NAMES if entry(name).card.randomised])
def test_a_randomised_defense_draws_anew_at_another_step_and_leaves_global_generators_alone(name):
    defended, given = defend(confident((1, 8, 8)), entry(name)).eval(), images((5, 1, 8, 8))
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    with torch.no_grad():
        with keyed(list("abcde"), step=1):
            first = defended(given)
        with keyed(list("abcde"), step=2):
            second = defended(given)
        with keyed(["a", "b"]), pytest.raises(ValueError, match="2 samples do not fit"):
            defended(given)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", [name for name in NAMES if entry(name).card.randomised])
def test_a_randomised_defense_without_draws_follows_the_global_generator_of_torch(name):
    defended, given = defend(confident((1, 8, 8)), entry(name)).eval(), images((5, 1, 8, 8))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        first, second = defended(given), defended(given)
        torch.manual_seed(1)
        assert torch.equal(defended(given), first)
    assert not torch.equal(first, second)


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


@pytest.mark.parametrize("quality", [5, 50, 100])
@pytest.mark.parametrize("shape", [(9, 1, 8, 8), (3, 2, 16, 24), (3, 3, 16, 16), (2, 1, 28, 28), (8200, 1, 8, 8)])
def test_jpeg_of_several_grey_images_at_once_is_that_of_each(shape, quality):
    jpeg, given = entry("jpeg").make(quality=quality), images(shape)
    rows = torch.linspace(0, len(given) - 1, 9).long()
    alone = [torch.from_numpy(jpeg.preprocessor.preprocessor(given[row : row + 1].numpy())[0]) for row in rows]
    assert torch.equal(jpeg(given)[rows], torch.cat(alone))


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


@pytest.mark.parametrize("name", NAMES)
def test_what_is_measured_of_a_defense_is_what_its_card_says(name):
    card = entry(name).card
    defense = entry(name).make() if card.kind == "input" else defend(confident((1, 8, 8)), entry(name)).eval()
    state = torch.get_rng_state()
    with keyed(["other"]):
        # Of the detector, the answer to the image itself has a gradient, and that to the squeezed one has none.
        assert is_differentiable(defense, images((20, 1, 8, 8))) is (card.differentiable or name == "squeeze_detector")
        assert is_randomised(defense, images((20, 1, 8, 8))) is card.randomised
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", NAMES)
def test_what_gradient_attacks_receive_has_a_gradient_for_every_image(name):
    view = defend(confident((1, 8, 8)), entry(name)).attack_view()
    point = (0.4 + 0.2 * images((6, 1, 8, 8))).requires_grad_()
    with keyed(list("abcdef")):
        outputs = view(point)
    labels = outputs[:, :CLASSES].argmin(1)
    (gradient,) = torch.autograd.grad(outputs.gather(1, labels[:, None]).sum(), point)
    assert gradient.isfinite().all()
    there = gradient.flatten(1).abs().amax(1) > 0
    # Noise below zero is cut off, and so is the gradient.
    assert there.any() if name == "output_noise" else there.all()


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


def test_a_median_has_the_values_of_art_and_a_gradient_of_its_own():
    for window in (1, 2, 3, 5):
        given = images((3, 2, 9, 6), torch.float64)
        assert torch.equal(
            entry("median").make_substitute(window=window)(given), entry("median").make(window=window)(given)
        )
    point = images((1, 1, 5, 5)).requires_grad_()
    middle = entry("median").make_substitute()(point)[0, 0, 2, 2]
    (gradient,) = torch.autograd.grad(middle, point)
    assert gradient.sum() == 1
    assert point[gradient == 1] == middle


def test_a_thermometer_decoded_has_the_levels_of_arts_code():
    given = images((2, 3, 5, 4))
    kind = importlib.import_module("art.defences.preprocessor").ThermometerEncoding
    code, _ = kind((0.0, 1.0), num_space=6, channels_first=True)(given.numpy().copy())
    ones = torch.from_numpy(code).view(2, 3, 6, 5, 4).sum(2)
    out = entry("thermometer").make(levels=6)(given)
    torch.testing.assert_close(out, (ones - 1) / 5)
    assert (out - given).abs().max() <= 1 / 6
    assert (out[0, 0, 0, 0], out[0, 0, -1, -1]) == (0, 1)


def test_total_variation_is_arts_on_each_image_with_its_channels_last():
    given = images((2, 3, 9, 6))
    kind = importlib.import_module("art.defences.preprocessor").TotalVarMin
    smooth = entry("total_variation").make(lamb=0.5)
    with keyed(["a", "b"]):
        out = smooth(given)
    # All pixels kept: nothing is left to chance.
    almost = 1 - 1e-9
    expected, _ = kind(prob=almost, lamb=0.5, clip_values=(0.0, 1.0))(given.permute(0, 2, 3, 1).numpy())
    certain = entry("total_variation").make(prob=almost, lamb=0.5)(given)
    torch.testing.assert_close(certain, torch.from_numpy(expected).permute(0, 3, 1, 2))

    def roughness(x):
        return (x.diff(dim=2).abs().sum() + x.diff(dim=3).abs().sum()).item()

    assert roughness(out) < 0.7 * roughness(given)


def test_resizing_shrinks_to_every_size_at_every_place_and_keeps_some_images_whole():
    given = torch.ones(400, 1, 8, 8)
    with keyed([str(index) for index in range(400)]):
        out = entry("random_resize_pad").make(least=0.75)(given)
    rows = (out[:, 0] > 0).any(2)
    sides = rows.sum(1)
    assert sorted(sides.unique().tolist()) == [6, 7, 8]
    share = [(sides == side).float().mean().item() for side in (6, 7, 8)]
    assert share == pytest.approx([1 / 3] * 3, abs=0.09)
    first = rows.to(torch.int64).argmax(1)[sides == 6]
    assert sorted(first.unique().tolist()) == [0, 1, 2]
    assert torch.equal(((out == 0) | (out - 1).abs().lt(1e-6)), torch.ones_like(out, dtype=torch.bool))


@pytest.mark.parametrize("name", ["bit_depth", "jpeg", "thermometer"])
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


@pytest.mark.parametrize("name", [*INPUTS, *OUTPUTS])
def test_the_forward_pass_of_bpda_is_the_defense_bit_for_bit(name):
    transform, given = entry(name).make(), images((3, 3, 9, 9))
    if name in OUTPUTS:
        given = 20 * given.flatten(1)
    with keyed(["a", "b", "c"]):
        out = straight_through(transform, entry(name).make_substitute())(given.clone().requires_grad_())
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
        ("random_resize_pad", {"least": 1.5}, "least=1.5"),
        ("thermometer", {"levels": 1}, "levels=1"),
        ("total_variation", {"prob": 0}, "prob=0"),
        ("total_variation", {"lamb": -1.0}, "lamb=-1.0"),
        ("total_variation", {"norm": 3}, "norm=3"),
        ("total_variation", {"max_iter": 0}, "max_iter=0"),
        ("scaled", {"factor": 0}, "factor=0"),
        ("reverse_sigmoid", {"beta": "much"}, "beta='much'"),
        ("reverse_sigmoid", {"gamma": 0}, "gamma=0"),
        ("rounded", {"decimals": 0}, "decimals=0"),
        ("high_confidence", {"cutoff": 1.0}, "cutoff=1.0"),
        ("output_noise", {"scale": math.inf}, "scale=inf"),
        ("confidence_detector", {"confidence": 1}, "confidence=1"),
        ("squeeze_detector", {"threshold": 2}, "threshold=2"),
        ("squeeze_detector", {"bits": 0}, "bits=0"),
        ("squeeze_detector", {"window": 0}, "window=0"),
        ("ensemble", {"shift": -1}, "shift=-1"),
        ("ensemble", {"flip": 1}, "flip=1"),
        ("ensemble", {"combine": "mean"}, "combine='mean'"),
        ("purify", {"steps": 0}, "steps=0"),
        ("purify", {"step_size": -0.1}, "step_size=-0.1"),
        ("smoothing", {"sigma": 0}, "sigma=0"),
        ("smoothing", {"alpha": 1}, "alpha=1"),
        ("smoothing", {"n": 0}, "n=0"),
        ("smoothing", {"n0": 2.5}, "n0=2.5"),
        ("smoothing", {"attack_draws": 0}, "attack_draws=0"),
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
    code = "import sys, gauntlet.defenses.pipeline.catalog as c; print(*({'torch', 'art', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
