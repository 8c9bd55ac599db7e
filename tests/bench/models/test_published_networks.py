"""Models: importing what users name, the checks of a model, weights, and the embedded zoo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import published
from datafiles import write_modules
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.classifier import check_model
from published import CIFAR_NORMALISATION, NEEDS_SHARED, SHARED, shared_images

pytestmark = pytest.mark.usefixtures("imports_are_undone")


# published networks, where their files are at hand


@pytest.mark.skipif(not SHARED, reason=NEEDS_SHARED)
@pytest.mark.parametrize(
    ("factory_name", "weights", "images", "normalisation", "correct"),
    [
        ("wong_kolter", "wong_kolter_mnist.pth", "mnist", {}, 982),
        (
            "ResNet20",
            "resnet20_cifar10.th",
            "cifar10",
            CIFAR_NORMALISATION,
            915,
        ),
    ],
)
def test_published_networks_have_their_published_accuracy(
    tmp_path, factory_name, weights, images, normalisation, correct
):
    repo = write_modules(tmp_path, architectures=Path(published.__file__).read_text(encoding="utf-8"))
    loaded = load_model(f"{repo}/architectures.py:{factory_name}", weights=Path(SHARED) / weights, **normalisation)
    x, labels = shared_images(images)
    assert check_model(loaded.module, x[:64], labels, classes=10) == []
    with torch.no_grad():
        assert int((loaded.module(x).argmax(1) == labels).sum()) == correct
