"""The guard that says when a model is fed otherwise than it wants: networks of the zoo, changed so that they want it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import published
from builders import network
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.models.catalog import MODELS
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.classifier import Classifier, ModelError, check_model
from published import NEEDS_SHARED, SHARED, shared_images

DATA = load_data("digits")
IMAGES, LABELS = DATA.images[:64], DATA.labels[:64]


class Wants(nn.Module):
    """A network that undoes what its images have gone through, and counts the images that it sees."""

    def __init__(self, undo, name="cnn.trades_digits"):
        super().__init__()
        self.inner = load_model(name).module.model
        self.undo = undo
        self.seen = 0
        self.eval()

    def forward(self, fed):
        self.seen += len(fed)
        return self.inner(self.undo(fed))


def from_bytes(fed):
    return fed / 255


def from_signed(fed):
    return fed * 0.5 + 0.5


def from_channels_last(fed):
    return fed.permute(0, 3, 1, 2)


def test_images_from_0_to_255_are_named_with_the_option_that_gives_them():
    with pytest.raises(
        ModelError, match=r"gets \d+ of 64 clean images right, no more than chance, but 6\d where"
    ) as caught:
        check_model(Classifier(Wants(from_bytes)), IMAGES, LABELS)
    assert str(caught.value).endswith("images are fed from 0 to 255: use --std 0.00392157")
    assert check_model(Classifier(Wants(from_bytes), std=(0.00392157,)), IMAGES, LABELS) == []


def test_a_model_that_is_much_better_on_images_from_minus_1_to_1_is_flagged_with_its_figures():
    (flag,) = check_model(Classifier(Wants(from_signed)), IMAGES, LABELS)
    assert (flag.name, flag.severity, flag.needs) == ("normalisation", "block", ())
    assert "use --mean 0.5 and --std 0.5" in flag.message
    figures = dict(flag.evidence)
    assert figures["n"] == 64
    assert figures["right"] < 0.75 * 64 < figures["right_otherwise"]


def test_a_normalisation_that_the_model_has_already_is_named():
    given = Classifier(Wants(lambda fed: fed), mean=(0.9,), std=(0.05,))
    with pytest.raises(ModelError, match="no --mean and --std, since the model has its normalisation inside"):
        check_model(given, IMAGES, LABELS)


def test_channels_last_is_named_where_the_model_fails_and_where_it_only_does_badly():
    with pytest.raises(ModelError, match=r"but accepts them channels last \(N, H, W, C\)"):
        check_model(Classifier(Wants(from_channels_last)), IMAGES, LABELS)
    colour = torch.cat([IMAGES, 1 - IMAGES, IMAGES], 1)
    # It takes any order of the values, so that it does not fail.
    flat = Wants(lambda fed: fed.reshape(len(fed), 8, 8, 3)[..., 0].unsqueeze(1))
    with pytest.raises(
        ModelError, match=r"channels last \(N, H, W, C\): use images\.permute\(0, 2, 3, 1\) inside the model"
    ):
        check_model(Classifier(flat), colour, LABELS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: labels + 1, "the labels seem to count from 1: subtract 1"),
        (
            lambda labels: (3 * labels + 1) % 10,
            "in another order than the data's: most images of class 0 are taken for 3",
        ),
    ],
)
def test_labels_of_another_order_are_named_not_blamed_on_the_normalisation(change, message):
    eleven = nn.Sequential(load_model("cnn.trades_digits").module.model, nn.ConstantPad1d((0, 1), -99.0)).eval()
    (flag,) = check_model(Classifier(eleven), IMAGES, change(LABELS))
    assert (flag.name, flag.severity) == ("class-order", "block")
    assert message in flag.message


@pytest.mark.parametrize("name", sorted(MODELS.names("cnn.*_digits")))
def test_no_model_of_the_zoo_is_blamed_on_any_stretch_of_the_data(name):
    module = load_model(name).module
    for start in range(0, 768, 64):
        assert check_model(module, DATA.images[start : start + 64], DATA.labels[start : start + 64]) == []


def test_a_model_that_knows_nothing_and_one_that_knows_half_are_not_blamed():
    assert check_model(Classifier(network(64, 10)), IMAGES, LABELS) == []
    half = load_model("cnn.trades_digits").module.model
    blind = nn.Sequential(half, nn.Linear(10, 10, bias=False)).eval()
    with torch.no_grad():
        blind[1].weight.copy_(torch.diag(torch.tensor([1.0] * 5 + [0.0] * 5)))
    assert check_model(Classifier(blind), IMAGES, LABELS) == []


def test_a_model_that_does_well_is_not_asked_again():
    good = Wants(lambda fed: fed)
    check_model(Classifier(good), IMAGES, LABELS)
    assert good.seen == 64


def test_a_model_is_not_judged_without_a_label_for_each_image():
    assert check_model(Classifier(Wants(from_bytes)), IMAGES, LABELS[:10]) == []


def test_a_size_that_the_model_was_not_made_for_is_named():
    module = load_model("cnn.trades_digits").module
    module.input_size = (1, 8, 8)
    with pytest.raises(ModelError, match=r"shape \(2, 1, 12, 12\), and was made for 1 × 8 × 8"):
        check_model(module, torch.rand(2, 1, 12, 12))


@pytest.mark.skipif(not SHARED, reason=NEEDS_SHARED)
def test_a_published_network_without_its_normalisation_gets_40_percent_and_is_flagged(tmp_path):
    shutil.copy(published.__file__, tmp_path / "resnet_of_he.py")
    loaded = load_model(f"{tmp_path}/resnet_of_he.py:ResNet20", weights=Path(SHARED) / "resnet20_cifar10.th")
    images, labels = shared_images("cifar10")
    with torch.no_grad():
        assert float((loaded.module(images).argmax(1) == labels).float().mean()) == pytest.approx(0.401, abs=0.002)
    (flag,) = check_model(loaded.module, images[:64], labels[:64], classes=10)
    assert "ImageNet's mean and std" in flag.message
