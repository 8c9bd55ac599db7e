"""Models: importing what users name, the checks of a model, weights, and the embedded zoo."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from datafiles import write_modules
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.classifier import check_model

pytestmark = pytest.mark.usefixtures("imports_are_undone")


# published networks, where their files are at hand


SHARED = os.environ.get("GAUNTLET_SHARED_DATA")


PUBLISHED = """
import torch
from torch import nn
from torch.nn import functional

def wong_kolter():
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10))

class Block(nn.Module):
    def __init__(self, inside, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.grows = stride == 2

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.grows:
            quarter = y.shape[1] // 4
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
        return (x + y).relu()

class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16, 1), Block(16, 16, 1), Block(16, 16, 1))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))
"""


@pytest.mark.skipif(not SHARED, reason="GAUNTLET_SHARED_DATA does not name a folder with the published networks")
@pytest.mark.parametrize(
    ("factory_name", "weights", "images", "normalisation", "correct"),
    [
        ("wong_kolter", "wong_kolter_mnist.pth", "mnist_test_1000.npz", {}, 982),
        (
            "ResNet20",
            "resnet20_cifar10.th",
            "cifar10_test_1000.npz",
            {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
            915,
        ),
    ],
)
def test_published_networks_have_their_published_accuracy(
    tmp_path, factory_name, weights, images, normalisation, correct
):
    repo = write_modules(tmp_path, published=PUBLISHED)
    loaded = load_model(f"{repo}/published.py:{factory_name}", weights=Path(SHARED) / weights, **normalisation)
    with np.load(Path(SHARED) / images) as arrays:
        pixels, labels = torch.from_numpy(arrays["images"]) / 255, torch.from_numpy(arrays["labels"])
    x = pixels.view(len(labels), -1, *pixels.shape[-2:])
    assert check_model(loaded.module, x[:64], labels, classes=10) == []
    with torch.no_grad():
        assert int((loaded.module(x).argmax(1) == labels).sum()) == correct
