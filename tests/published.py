"""Architectures of published networks, and their weights and images where a folder with them is at hand.

`GAUNTLET_SHARED_DATA` names the folder; tests that need it are skipped without it.
"""

import os
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

SHARED = os.environ.get("GAUNTLET_SHARED_DATA", "")
NEEDS_SHARED = "GAUNTLET_SHARED_DATA does not name a folder with the published networks"
CIFAR_NORMALISATION = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def shared_images(name, count=1000):
    """The first test images (N, C, H, W) in [0, 1] of `mnist` or `cifar10`, and their labels."""
    with np.load(Path(SHARED) / f"{name}_test_1000.npz") as arrays:
        pixels, labels = torch.from_numpy(arrays["images"]) / 255, torch.from_numpy(arrays["labels"])
    return pixels.view(len(labels), -1, *pixels.shape[-2:])[:count], labels[:count]


def wong_kolter():
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1568, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


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
