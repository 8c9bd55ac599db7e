"""Answers that depend on the other images of the batch are noticed before any attack, and named in every figure."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gauntlet
from builders import network
from gauntlet.bench.registries import DEFENSES
from gauntlet.defenses.pipeline.batch_dependence import SingleImageError, batch_dependence, batch_norms
from gauntlet.defenses.pipeline.defended_model import defend


class Blend(nn.Module):
    """The share `much` of the mean logits of the batch is subtracted."""

    def __init__(self, much=0.9):
        super().__init__()
        self.net, self.much = network(64, 10), much
        self.eval()

    def forward(self, images):
        logits = self.net(images)
        return logits - self.much * logits.mean(0, keepdim=True)


class Statistics(nn.Module):
    """Normalisation by the statistics of the batch, in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1, affine=False, track_running_stats=False)
        self.net = network(64, 10)
        self.eval()

    def forward(self, images):
        return self.net(self.norm(images))


@pytest.fixture(scope="module")
def images():
    return gauntlet.load_data("digits", samples="16").images


@pytest.mark.parametrize("model", [Blend(), Blend(0.02), Statistics()], ids=["mean", "a little", "batch norm"])
def test_what_a_batch_changes_is_far_beyond_rounding(model, images):
    found = batch_dependence(model, images)
    assert found.found
    assert found.changed >= 6
    assert found.largest > 1e-2


@pytest.mark.parametrize("change", [lambda z: z, lambda z: z + 1e5, lambda z: z * 1e3, lambda z: z * 1e-3])
def test_rounding_is_no_dependence_whatever_the_scale_and_offset_of_the_logits(change, images):
    class Changed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = gauntlet.load_model("cnn.standard_digits").module

        def forward(self, images):
            return change(self.net(images))

    found = batch_dependence(Changed().eval(), images)
    assert not found.changed
    assert found.images == 8


@pytest.mark.parametrize("name", DEFENSES.expand("*"))
def test_no_registered_defense_depends_on_the_batch_and_randomness_is_none(name, images):
    entry = DEFENSES.get(name)
    few = images[: 2 if entry.card.samples else 16]
    assert not batch_dependence(defend(network(64, 10), entry, {}).eval(), few).changed


def test_noise_of_the_global_generator_is_no_dependence(images):
    class Noisy(nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, 20:30] + torch.randn(len(images), 10)

    assert not batch_dependence(Noisy().eval(), images).changed


def test_a_model_that_fails_on_a_single_image_is_an_error_that_names_the_batch(images):
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, track_running_stats=False), nn.Linear(64, 10)).eval()
    with pytest.raises(SingleImageError, match=r"depend on the batch.*running statistics"):
        batch_dependence(model, images)
    assert batch_norms(model) == ["1"]


@pytest.mark.parametrize("attack", ["square(queries=20)", "pgd(steps=3)", "fmn(steps=3)", "torchattacks.FGSM"])
def test_the_figure_of_every_attack_names_the_batch_and_the_norm(attack, images):
    labels = Statistics()(images).argmax(1)
    found = gauntlet.evaluate(Statistics(), images, labels, threat="Linf:0.2", attacks=attack, checks="none")
    (flag,) = (flag for flag in found.flags if flag.name == "batch-dependent")
    assert flag.severity == "block"
    assert "batch" in flag.message
    assert "norm" in flag.message.partition("running statistics:")[2]


@pytest.mark.parametrize("size", [1, 8])
def test_successes_that_another_batch_undoes_do_not_count(size, images):
    labels = Blend()(images).argmax(1)
    found = gauntlet.evaluate(Blend(), images, labels, threat="Linf:0.2", attacks="pgd(steps=3)", batch_size=size)
    assert [flag.name for flag in found.flags if flag.severity == "block"] == ["batch-dependent"]
