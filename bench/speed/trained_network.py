"""A network that was trained for some seconds on images of random classes, and the radius at which half of its images stand."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from gauntlet.attacks.ops.norms import project, random_point, steepest
from gauntlet.attacks.ops.random import Draws, sample_keys
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.data.samples.in_memory import from_arrays
from gauntlet.bench.speed.networks import CLASSES, Network

STANDING = (0.3, 0.7)
"""The share of the images that should stand: where all fall at once, or none does, attacks save nothing or everything."""
_GRID, _CONTRAST, _NOISE = 2, 0.3, 0.1
"""Coarse cells of a class's pattern along a side, its contrast, and the noise of each image, as shares of the pixel range."""
_LEAST, _STEPS, _ENOUGH = 60, 400, 0.95
"""Least and most steps of training, and the accuracy on a batch at which it ends: batch normalisation needs some steps."""
_TRIES, _PROBED = 12, 128
"""Radii that are tried, and the number of images that each is tried on."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A network to be attacked."""

    network: Network
    model: nn.Module
    data: Data
    eps: float
    said: str
    """How it was trained, and what stands at `eps` in Linf after PGD-20."""


def trained_network(network: Network, device: torch.device, seconds: float, seed: int = 0) -> TrainedNetwork:
    """Train for at most `seconds`, then seek the radius. Restores torch's global generators."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        patterns = interpolate(torch.rand(CLASSES, network.shape[0], _GRID, _GRID), network.shape[1:], mode="nearest")
        model = network.build().to(device)
        steps, accuracy, spent = _train(model, patterns.to(device), network.batch, seconds)
        images, labels = _draw(patterns, network.images)
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    eps, standing = _radius(model, images.to(device), labels.to(device), network.batch)
    low, high = STANDING
    said = (
        f"{network.name}: random weights, trained for {steps} steps of {network.batch} drawn images ({spent:.0f} s, accuracy "
        f"{100 * accuracy:.0f} % on the last); radius Linf:{eps:.4g}, found by bisection, where PGD-20 leaves "
        f"{100 * standing:.0f} % of {min(_PROBED, network.images)} images standing"
        + ("" if low <= standing <= high else f": beyond {100 * low:g} to {100 * high:g} %")
    )
    return TrainedNetwork(network, model, from_arrays(images, labels, name=network.name, classes=CLASSES), eps, said)


def _draw(patterns: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) of random classes, and their labels."""
    labels = torch.randint(len(patterns), (count,), device=patterns.device)
    noise = torch.randn(count, *patterns.shape[1:], device=patterns.device)
    # How clearly an image shows its class differs, so that not all fall at the same radius.
    clarity = 0.25 + 0.75 * torch.rand(count, 1, 1, 1, device=patterns.device)
    images = 0.5 + clarity * 2 * _CONTRAST * (patterns[labels] - 0.5) + _NOISE * noise
    return images.clamp(0, 1), labels


def _train(model: nn.Module, patterns: Tensor, batch: int, seconds: float) -> tuple[int, float, float]:
    """Number of steps, accuracy on the last batch, and seconds."""
    model.train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    began, accuracy, steps = time.perf_counter(), 0.0, 0
    while steps < _STEPS and (steps < _LEAST or accuracy < _ENOUGH) and time.perf_counter() - began < seconds:
        images, labels = _draw(patterns, batch)
        logits = model(images)
        optimiser.zero_grad()
        cross_entropy(logits, labels).backward()
        optimiser.step()
        steps += 1
        accuracy = float((logits.argmax(1) == labels).float().mean())
    return steps, accuracy, time.perf_counter() - began


def _radius(model: nn.Module, images: Tensor, labels: Tensor, batch: int) -> tuple[float, float]:
    """A radius at which about half of the images stand, and their share: bisection between 0 and 1 by factors of two first."""
    images, labels = images[:_PROBED], labels[:_PROBED]
    low, high, eps = 0.0, 1.0, 1 / 64
    best = eps, 1.0
    for _ in range(_TRIES):
        share = _standing(model, images, labels, ThreatModel("Linf", eps), batch)
        if abs(share - 0.5) <= abs(best[1] - 0.5):
            best = eps, share
        if abs(share - 0.5) <= 0.1:
            break
        low, high = (eps, high) if share > 0.5 else (low, eps)
        eps = min(2 * eps, 1.0) if high == 1.0 else (low + high) / 2
    return best


def _standing(model: nn.Module, images: Tensor, labels: Tensor, threat: ThreatModel, batch: int) -> float:
    """The share of the images that plain PGD with 20 steps leaves standing."""
    keys = sample_keys(0, "radius", [str(i) for i in range(len(images))], images.device)
    left = 0
    for rows in torch.arange(len(images), device=images.device).split(batch):
        clean, truth = images[rows], labels[rows]
        x = random_point(clean, threat, Draws.start(keys[rows]))
        with torch.no_grad():
            right = model(clean).argmax(1) == truth
        for _ in range(20):
            x.requires_grad_()
            (gradient,) = torch.autograd.grad(cross_entropy(model(x), truth, reduction="sum"), x)
            x = project(x.detach() + threat.eps / 8 * steepest(gradient, "Linf"), clean, threat)
        with torch.no_grad():
            left += int((right & (model(x).argmax(1) == truth)).sum())
    return left / len(images)
