"""Masks that answer with the labels of the nearest training images, which have no gradient.

Papernot and McDaniel 2018, "Deep k-nearest neighbors", arXiv 1803.04765; broken by Sitawarin and Wagner 2019, "On the
robustness of deep k-nearest neighbors", arXiv 1903.08333, whose soft neighbours the twins are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from gauntlet.bench.checks.masks.parts import CLASSES
from gauntlet.bench.checks.masks.training import member, training_digits

NEIGHBOURS = 5


class Neighbours(nn.Module):
    """Votes of the five training images whose features are nearest."""

    bank: Tensor
    classes: Tensor

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features
        images, labels = training_digits()
        with torch.no_grad():
            self.register_buffer("bank", features(images))
        self.register_buffer("classes", one_hot(labels, CLASSES).float())
        self.eval()

    def distances(self, images: Tensor) -> Tensor:
        """Squared distances (N, 1000)."""
        distances: Tensor = (self.features(images)[:, None] - self.bank).square().sum(2)
        return distances

    def forward(self, images: Tensor) -> Tensor:
        """Votes (N, 10)."""
        nearest = self.distances(images).topk(NEIGHBOURS, largest=False).indices
        found: Tensor = self.classes[nearest].sum(1)
        return found


class SoftNeighbours(Neighbours):
    """All training images vote; the weight falls with the distance, by a scale that is the image's own."""

    def forward(self, images: Tensor) -> Tensor:
        """Logarithms of the votes (N, 10)."""
        distances = self.distances(images)
        near = distances.topk(NEIGHBOURS, largest=False).values
        scale = near[:, -1:].detach() / 8
        weights = -distances / scale
        return torch.stack([weights[:, own].logsumexp(1) for own in self.classes.bool().T], 1)


def _features() -> nn.Module:
    return nn.Sequential(*list(member(1).children())[:-1])


def feature_neighbours() -> nn.Module:
    """Neighbours among the features of a network."""
    return Neighbours(_features())


def feature_neighbours_twin() -> nn.Module:
    """Soft neighbours."""
    return SoftNeighbours(_features())


class Whitened(nn.Module):
    """The 32 principal components of the training images, each divided by its deviation."""

    mean: Tensor
    components: Tensor

    def __init__(self) -> None:
        super().__init__()
        images = training_digits()[0].flatten(1)
        self.register_buffer("mean", images.mean(0))
        _, sizes, components = torch.linalg.svd(images - self.mean, full_matrices=False)
        self.register_buffer("components", components[:32] / sizes[:32, None] * len(images) ** 0.5)

    def forward(self, images: Tensor) -> Tensor:
        """Components (N, 32)."""
        return (images.flatten(1) - self.mean) @ self.components.T


def pixel_neighbours() -> nn.Module:
    """Neighbours among whitened images."""
    return Neighbours(Whitened())


def pixel_neighbours_twin() -> nn.Module:
    """Soft neighbours."""
    return SoftNeighbours(Whitened())
