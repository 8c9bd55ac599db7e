"""The small convolutional network of the embedded zoo, for 8×8 images of one channel."""

from __future__ import annotations

from torch import nn


def cnn() -> nn.Module:
    """A network of 66,358 parameters from images (N, 1, 8, 8) in [0, 1] to logits (N, 10), in training mode.

    Its weights are drawn from torch's global generator, as torch's own layers do.
    """
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )
