"""Checks of attacks: broken ones are caught on problems that can be solved, sound ones pass."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

import gauntlet
from builders import executable, network
from gauntlet.attacks.adaptive import Adaptive, Pipeline
from gauntlet.attacks.fgsm import FGSM
from gauntlet.attacks.noise import Noise
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.bench.checks import effort, outcomes, strength
from gauntlet.bench.checks import hidden_masks as masks
from gauntlet.bench.checks import planted_example as planted
from gauntlet.bench.checks.plant import plant_examples
from gauntlet.bench.checks.readout import PlantedModel
from gauntlet.bench.checks.run_attack import run_attack, whole_box
from gauntlet.bench.checks.subject import Subject
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.registries import DEFENSES
from gauntlet.defenses.pipeline.defended_model import DefendedModel, defend

LINF = ThreatModel("Linf", 0.15)
THREATS = {"Linf": LINF, "L2": ThreatModel("L2", 0.8), "L1": ThreatModel("L1", 4)}


def subject(name, attack, *, defense="none", threat=LINF, count=24, **settings):
    data = gauntlet.load_data("digits")
    module = (
        getattr(masks, name)()
        if name in masks.MASKS
        else network(64, 10)
        if name == "linear"
        else gauntlet.load_model(name).module
    )
    entry = DEFENSES.get(defense)
    pipeline = defend(module, entry, settings).eval()
    images = data.images[:count]
    with torch.no_grad():
        labels = module(images).argmax(1) if name == "linear" else data.labels[:count]
    return Subject(pipeline, images, labels, list(data.ids[:count]), threat, card=entry.card, attack=executable(attack))


def adaptive(norm="Linf", **known):
    return Adaptive(norm).against(Pipeline(**known))


class Lazy(PGD):
    """A step of no length, from the clean image."""

    def step(self, state, oracle):
        super().step(state, oracle)
        return state


LAZY = Lazy(random_start=False)

STRONG = [strength.unbounded_attack, planted.planted_example, strength.obfuscation]


# By default each network and each norm; the other pairs are slow.
@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("cnn.standard_digits", "Linf"),
        ("cnn.trades_digits", "Linf"),
        ("cnn.standard_digits", "L2"),
        ("linear", "L2"),
        ("linear", "L1"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (
                ("linear", "Linf"),
                ("cnn.trades_digits", "L2"),
                ("cnn.standard_digits", "L1"),
                ("cnn.trades_digits", "L1"),
            )
        ),
    ],
)
def test_sound_attacks_on_honest_models_pass(name, norm):
    one = subject(name, adaptive(norm), threat=THREATS[norm])
    for check in STRONG:
        found = check(one)
        assert found.result == "passed", found.sentence


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn.standard_digits", "cnn.trades_digits"])
def test_a_sound_attack_has_converged_and_noise_finds_no_more(name):
    one = subject(name, PGD(steps=100, loss="cw"), count=16)
    for check in (effort.converged, effort.incomplete_optimisation, effort.random_noise):
        found = check(one)
        assert found.result == "passed", found.sentence


@pytest.mark.parametrize("check", [strength.unbounded_attack, planted.planted_example, effort.random_noise])
def test_an_attack_that_takes_no_step_is_caught(check):
    found = check(subject("cnn.standard_digits", LAZY, threat=ThreatModel("Linf", 0.3)))
    assert found.result == "fired"
    assert found.flag.severity == "block"
    # Only another attack that passes the same test answers it.
    assert found.flag.needs == (found.check,)
    assert found.flag.samples
    assert found.flag.evidence


def test_an_attack_that_takes_no_step_is_caught_on_the_twin():
    found = strength.undefended_twin(subject("cnn.standard_digits", LAZY, defense="bit_depth"))
    assert found.result == "fired"
    sound = subject("cnn.standard_digits", PGD(), defense="bit_depth")
    assert strength.undefended_twin(sound).result == "passed"
    assert strength.undefended_twin(subject("cnn.standard_digits", LAZY)).result == "not applicable"


@pytest.mark.parametrize("check", [strength.unbounded_attack, strength.obfuscation, planted.planted_example])
@pytest.mark.parametrize("name", ["scaled_logits", "rounded_softmax", "quantised_input"])
def test_pgd_is_caught_where_gradients_are_masked(name, check):
    assert check(subject(name, PGD())).result == "fired"


@pytest.mark.parametrize("name", ["scaled_logits", "rounded_softmax", "quantised_input"])
def test_the_adaptive_attack_passes_where_gradients_are_masked(name):
    one = subject(name, adaptive(masked=True))
    assert strength.unbounded_attack(one).result == "passed"
    assert planted.planted_example(one).result == "passed"


def test_a_hidden_example_is_one_and_the_images_stay_right():
    one = subject("cnn.trades_digits", PGD()).right
    readout, points = plant_examples(one)
    model = PlantedModel(one.pipeline, readout)
    assert ((points - one.images).abs().amax((1, 2, 3)) <= LINF.eps + 1e-6).all()
    assert ((points >= 0) & (points <= 1)).all()
    with torch.no_grad():
        assert (model(points).argmax(1) == readout.hidden).all()
        assert (model(one.images).argmax(1) == one.labels).all()
        # The network itself is as before.
        assert (one.pipeline(points).argmax(1) == one.labels).double().mean() > 0.8


def test_in_a_network_without_linear_layers_an_example_can_be_hidden_only_behind_a_declared_defense():
    class Norms(nn.Module):
        def forward(self, images):
            return -torch.cdist(images.flatten(1), torch.eye(10, 64))

    data = gauntlet.load_data("digits")
    norms = Norms().eval()
    pipeline = DefendedModel(norms, nn.Identity(), differentiable=True, randomised=False, twin=norms).eval()
    labels = pipeline(data.images[:24]).argmax(1)
    one = Subject(pipeline, data.images[:24], labels, list(data.ids[:24]), LINF, attack=executable(PGD(loss="cw")))
    assert planted.planted_example(one).result == "passed"
    assert planted.planted_example(replace(one, attack=executable(LAZY))).result == "fired"
    # In an undefended network whatever hides the gradient would be replaced with it.
    bare = DefendedModel(norms, differentiable=True, randomised=False).eval()
    assert planted.planted_example(replace(one, pipeline=bare)).result == "not applicable"


class FalseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)


class FalseHead(nn.Linear):
    def forward(self, x):
        return FalseGradient.apply(super().forward(x))


@pytest.mark.parametrize("mask", ["subclass", "hook", "none"])
def test_a_head_that_does_more_than_a_linear_layer_is_not_replaced(mask):
    head = (FalseHead if mask == "subclass" else nn.Linear)(64, 10)
    if mask == "hook":
        head.register_forward_hook(lambda module, given, output: FalseGradient.apply(output))
    model = nn.Sequential(nn.Flatten(), head).eval()
    data = gauntlet.load_data("digits")
    images = data.images[:24]
    pipeline = DefendedModel(model, differentiable=True, randomised=False).eval()
    labels = pipeline(images).argmax(1)
    one = Subject(pipeline, images, labels, list(data.ids[:24]), LINF, attack=executable(PGD(loss="cw")))
    found = planted.planted_example(one).result
    assert (found == "not applicable") == (mask != "none")


class Copies(nn.Module):
    """The mean logits of noisy copies of each image: side by side, one after another, or in calls of their own."""

    def __init__(self, model, order, noise=0.05):
        super().__init__()
        self.model, self.order, self.noise = model, order, noise

    def forward(self, images):
        copies, rest = 4, [1] * (images.dim() - 1)
        rows = images.repeat_interleave(copies, 0) if self.order == "side by side" else images.repeat(copies, *rest)
        rows = rows + self.noise * torch.randn_like(rows)
        if self.order == "calls":
            return torch.stack([self.model(part) for part in rows.split(len(images))]).mean(0)
        outputs = self.model(rows)
        if self.order == "side by side":
            return outputs.view(len(images), copies, -1).mean(1)
        return outputs.view(copies, len(images), -1).mean(0)


def convolved_head():
    """A digits network whose last layer is a convolution of one pixel."""
    model = copy.deepcopy(load_model("cnn.standard_digits").module)
    path, head = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    convolution = nn.Conv2d(head.in_features, head.out_features, 1)
    convolution.load_state_dict({"weight": head.weight[..., None, None], "bias": head.bias})
    parent, _, name = path.rpartition(".")
    pixel = nn.Unflatten(1, (head.in_features, 1, 1))
    setattr(model.get_submodule(parent), name, nn.Sequential(pixel, convolution, nn.Flatten()))
    return model


@pytest.mark.parametrize("order", ["side by side", "one after another", "calls", "convolution"])
def test_examples_are_planted_in_copies_of_images_under_noise_and_in_a_convolution(order):
    noisy = order != "convolution"
    inner = Copies(load_model("cnn.standard_digits").module, order) if noisy else convolved_head()
    pipeline = DefendedModel(inner, differentiable=True, randomised=noisy).eval()
    data = gauntlet.load_data("digits")
    images, labels, ids = data.images[:24], data.labels[:24], list(data.ids[:24])
    one = Subject(pipeline, images, labels, ids, LINF, attack=executable(PGD(steps=40, loss="cw")))
    found = planted.planted_example(one)
    assert dict(found.evidence)["planted"] >= 18
    assert found.result == "passed"
    assert planted.planted_example(replace(one, attack=executable(LAZY))).result == "fired"


def test_an_undefended_model_that_hides_gradients_itself_is_not_replaced():
    network = load_model("cnn.standard_digits").module

    class Masked(nn.Module):
        def forward(self, images):
            return nn.functional.linear(network(images.detach()), torch.eye(10))

    pipeline = defend(Masked(), DEFENSES.get("median"), {}).eval()
    data = gauntlet.load_data("digits")
    images = data.images[:24]
    labels = pipeline(images).argmax(1)
    one = Subject(pipeline, images, labels, list(data.ids[:24]), LINF, attack=executable(PGD(loss="cw")))
    found = planted.planted_example(one)
    assert found.result == "not applicable"
    assert "hides gradients itself" in found.sentence


def test_an_attack_without_a_setting_to_double_has_neither_converged_nor_not():
    found = effort.converged(subject("cnn.standard_digits", FGSM(), count=8))
    assert found.result == "not applicable"
    assert "doubled" in found.sentence


def test_too_few_steps_are_noticed():
    hasty = PGD(steps=5, step_size=0.05, random_start=False)
    assert effort.converged(subject("cnn.standard_digits", hasty, count=48)).result == "fired"
    found = effort.incomplete_optimisation(subject("cnn.standard_digits", hasty, count=48))
    assert found.result == "fired"
    assert found.flag.severity == "warn"


def test_a_randomised_defense_with_a_frozen_draw_falls_to_a_sound_attack_only():
    sound = subject("cnn.standard_digits", PGD(), defense="input_noise", sigma=0.1)
    assert strength.frozen_randomness(sound).result == "passed"
    assert strength.frozen_randomness(replace(sound, attack=executable(LAZY))).result == "fired"
    assert strength.frozen_randomness(subject("cnn.standard_digits", PGD())).result == "not applicable"


def test_a_frozen_model_gives_the_same_answer_in_every_batch():
    frozen = strength.FrozenDraw(masks.noisy_input())
    images = gauntlet.load_data("digits").images[:6]
    whole = frozen(images)
    assert torch.equal(whole, frozen(images))
    torch.testing.assert_close(frozen(images[3:5]), whole[3:5])


def test_examples_that_do_not_transfer_are_counted():
    found = strength.transfer_failure(subject("cnn.standard_digits", PGD(), defense="median"))
    assert found.result == "reported"
    figures = dict(found.evidence)
    assert 0 < figures["failed"] < figures["examples"]
    assert strength.transfer_failure(subject("cnn.standard_digits", PGD())).result == "not applicable"


@dataclass(frozen=True)
class Forgetful:
    """Finds examples by PGD, and returns the clean images, or the examples."""

    threat: ThreatModel
    forgets: bool
    version: ClassVar[int] = 1

    def __call__(self, model, images, labels, seed):
        point = images.clone()
        for _ in range(10):
            point = point.detach().requires_grad_()
            loss = nn.functional.cross_entropy(model(point), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, point)
            moved = point.detach() + 0.05 * gradient.sign()
            point = torch.clamp(images + (moved - images).clamp(-self.threat.eps, self.threat.eps), 0, 1)
        return images.clone() if self.forgets else point.detach()


def test_an_attack_that_discards_its_best_point_is_caught():
    found = outcomes.silent_success(subject("cnn.standard_digits", Forgetful(LINF, True)))
    assert found.result == "fired"
    assert dict(found.evidence)["lost"] > 10
    assert outcomes.silent_success(subject("cnn.standard_digits", Forgetful(LINF, False))).result == "passed"
    assert outcomes.silent_success(subject("cnn.standard_digits", PGD())).result == "not applicable"


def test_a_library_attack_is_given_the_ball_that_a_check_asks_for():
    one = subject("cnn.standard_digits", Forgetful(LINF, False)).right
    box = whole_box(LINF, one.images)
    assert box == ThreatModel("Linf", 1)
    wide = sum(outcome.adversarial is not None for outcome in run_attack(one, one.attack, threat=box))
    assert wide > sum(outcome.adversarial is not None for outcome in run_attack(one, one.attack))


def test_the_whole_box_is_reached_in_every_norm():
    images = torch.zeros(1, 3, 4, 4)
    assert [whole_box(THREATS[norm], images).eps for norm in ("Linf", "L2", "L1")] == [1, 48**0.5, 48]


def test_blind_guessing_is_no_attack_that_passes():
    found = planted.planted_example(subject("cnn.trades_digits", Noise(draws=50)))
    assert found.result == "fired"
