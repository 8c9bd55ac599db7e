"""Measurement of a whole evaluation: clean accuracy, the attack on the correct images, accuracy on its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.environment.stopwatch import timed
from gauntlet.bench.speed.measure import clock


@dataclass(frozen=True)
class WholeRun:
    """A whole evaluation."""

    seconds: float
    """After imports, with the images in memory, see `gauntlet.bench.speed.measure.clock`."""
    standing: int
    """Number of images that are classified correctly, both when clean and in the attack's result."""


def our_whole_run(
    attack: str,
    model: nn.Module,
    data: Data,
    threat: ThreatModel,
    seed: int,
    *,
    batch_size: int,
    device: torch.device,
    checks: str = "none",
    precision: str = "auto",
) -> WholeRun:
    """`gauntlet.evaluate` with an attack by its spec: verification and records are included."""
    from gauntlet.bench.api import evaluate

    now = clock(device)
    began = now()
    done = evaluate(
        model,
        data,
        threat=threat,
        attacks=attack,
        seed=seed,
        device=str(device),
        precision=precision,
        checks=checks,
        batch_size=batch_size,
    )
    return WholeRun(now() - began, int(done.robust.sum()))


def library_whole_run(
    attack: Any, model: nn.Module, data: Data, seed: int, *, batch_size: int, device: torch.device
) -> WholeRun:
    """What a user of a library runs: passes over all images, the attack in batches, and passes over its result."""
    now = clock(device)
    began = now()
    images, labels = data.images[:].to(device), data.labels.to(device)
    with timed("clean"):
        right = correct(model, images, labels, batch_size).nonzero().squeeze(1)
    with timed("attack"):
        chosen, truth = images[right], labels[right]
        batches = zip(chosen.split(batch_size), truth.split(batch_size), strict=True)
        points = torch.cat([attack(model, some, classes, seed) for some, classes in batches])
    with timed("verify"):
        standing = int(correct(model, points, truth, batch_size).sum())
    return WholeRun(now() - began, standing)


def correct(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    """Whether the model's prediction is the label, bool (N,)."""
    with torch.no_grad():
        logits = torch.cat([model(part) for part in images.split(batch_size)])
    return logits.argmax(1) == labels
