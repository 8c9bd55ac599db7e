"""Models and samples to run a rule on: linear models whose optimum is known, and small networks."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.box_projection import dual_size
from gauntlet.attacks.ops.losses import margin
from gauntlet.attacks.ops.threat import Norm, ThreatModel

SAMPLES = 24
ModelKind = Literal["linear models", "small networks"]
KINDS: tuple[ModelKind, ...] = ("linear models", "small networks")


@dataclass(frozen=True)
class Problem:
    """A model and samples that it classifies correctly."""

    name: str
    kind: ModelKind
    model: nn.Module
    images: Tensor
    """(N, C, H, W) in [0, 1]."""
    labels: Tensor
    classes: int
    threat: ThreatModel
    exact: Tensor
    """float64 (N,), distance of the nearest adversarial example; NaN for networks, where it is not known."""

    @property
    def breakable(self) -> int:
        """Number of samples that can be broken, for networks of all samples."""
        return int((~(self.exact > self.threat.eps)).sum())

    def first(self, count: int) -> Problem:
        """The problem with the first samples only."""
        return replace(self, images=self.images[:count], labels=self.labels[:count], exact=self.exact[:count])

    def in_float64(self) -> Problem:
        """The same problem in float64."""
        return replace(self, model=copy.deepcopy(self.model).double(), images=self.images.double())


def problems(norm: Norm) -> Iterator[Problem]:
    """Two linear models and two networks. About half of the samples of each can be broken, or seem so at first order."""
    yield _linear(norm, classes=4, shape=(1, 4, 4), seed=1)
    yield _linear(norm, classes=2, shape=(3, 3, 5), seed=2)
    convolution = nn.Sequential(nn.Conv2d(2, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5))
    yield _network(norm, "a convolutional network", convolution, classes=5, shape=(2, 6, 6), seed=3)
    dense = nn.Sequential(nn.Flatten(), nn.Linear(45, 16), nn.Tanh(), nn.Linear(16, 3))
    yield _network(norm, "a fully connected network", dense, classes=3, shape=(3, 3, 5), seed=4)


def _linear(norm: Norm, *, classes: int, shape: tuple[int, int, int], seed: int) -> Problem:
    pixels = shape[0] * shape[1] * shape[2]
    linear = nn.Linear(pixels, classes)
    model = nn.Sequential(nn.Flatten(), linear)
    generator = _initialise(model, seed)
    # Far enough from 0 and 1 that the box plays no part, so that the optimum has a closed form.
    images = 0.35 + 0.3 * torch.rand(SAMPLES, *shape, generator=generator)
    with torch.no_grad():
        linear.bias.sub_(model(torch.full((1, *shape), 0.5))[0])
        logits = model(images).double()
    labels = logits.argmax(1)
    weight = linear.weight.detach().double()
    between = weight[None] - weight[labels][:, None]
    slope = torch.stack([dual_size(between[:, one], norm) for one in range(classes)], dim=1)
    away = (logits.gather(1, labels[:, None]) - logits) / slope
    exact = away.scatter(1, labels[:, None], torch.inf).amin(1)
    name = f"a linear model with {classes} classes under {norm}"
    return Problem(name, "linear models", model, images, labels, classes, ThreatModel(norm, _middle(exact)), exact)


def _network(
    norm: Norm, name: str, model: nn.Module, *, classes: int, shape: tuple[int, int, int], seed: int
) -> Problem:
    generator = _initialise(model, seed)
    # A third of the pixels is 0 or 1.
    images = (1.5 * torch.rand(SAMPLES, *shape, generator=generator) - 0.25).clamp(0, 1)
    x = images.double().requires_grad_()
    logits = copy.deepcopy(model).double()(x)
    labels = logits.argmax(1)
    room = margin(logits, labels)
    (gradient,) = torch.autograd.grad(room.sum(), x)
    eps = _middle(room.detach() / dual_size(gradient, norm))
    return Problem(
        f"{name} under {norm}",
        "small networks",
        model,
        images,
        labels,
        classes,
        ThreatModel(norm, eps),
        torch.full_like(room, torch.nan),
    )


def _initialise(model: nn.Module, seed: int) -> torch.Generator:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    model.requires_grad_(False).eval()
    return generator


def _middle(distances: Tensor) -> float:
    """Between the two middle ones of an even number of distances."""
    ordered = distances.sort().values
    return float((ordered[SAMPLES // 2 - 1] + ordered[SAMPLES // 2]) / 2)
