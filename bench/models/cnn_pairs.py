"""The small convolutional network of the embedded zoo for 8×16 images of one channel: pairs of digits."""

from __future__ import annotations

from torch import nn


def cnn_pairs() -> nn.Module:
    """A network of 86,148 parameters from images (N, 1, 8, 16) in [0, 1] to logits (N, 100), in training mode.

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
        nn.Linear(1024, 64),
        nn.ReLU(),
        nn.Linear(64, 100),
    )
