"""Architectures of published networks, and their weights and images where a folder with them is at hand.

`GAUNTLET_SHARED_DATA` names the folder; tests that need it are skipped without it.
"""

import os
from pathlib import Path

import numpy as np
import torch

from gauntlet.bench.strength.architectures import ResNet20, wong_kolter

__all__ = ["CIFAR_NORMALISATION", "NEEDS_SHARED", "SHARED", "ResNet20", "shared_images", "wong_kolter"]
SHARED = os.environ.get("GAUNTLET_SHARED_DATA", "")
NEEDS_SHARED = "GAUNTLET_SHARED_DATA does not name a folder with the published networks"
CIFAR_NORMALISATION = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def shared_images(name, count=1000):
    """The first test images (N, C, H, W) in [0, 1] of `mnist` or `cifar10`, and their labels."""
    with np.load(Path(SHARED) / f"{name}_test_1000.npz") as arrays:
        pixels, labels = torch.from_numpy(arrays["images"]) / 255, torch.from_numpy(arrays["labels"])
    return pixels.view(len(labels), -1, *pixels.shape[-2:])[:count], labels[:count]
