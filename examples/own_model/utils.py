"""Things that everything here uses. Named like a thousand other files on purpose."""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = Path(__file__).parent


class Normalize(nn.Module):
    """(x - mean) / std, as the model's first layer, so that the model takes images in [0, 1]."""

    def __init__(self, mean: float, std: float):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x):
        return (x - self.mean) / self.std


def digits_as_bytes():
    """Images uint8 (N, 1, 8, 8), labels, and the indices of the 1,000 training and 797 test images."""
    bunch = load_digits()
    train, test = train_test_split(np.arange(1797), train_size=1000, stratify=bunch.target, random_state=0)
    images = np.round(bunch.images[:, None] * (255 / 16)).astype(np.uint8)
    return images, bunch.target.astype(np.int64), train, test
