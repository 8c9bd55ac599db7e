"""Measurement of a whole evaluation: clean accuracy, the attack on the correct images, accuracy on its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.environment.stopwatch import timed
from gauntlet.bench.speed.measure import Counted, clock


@dataclass(frozen=True)
class WholeRun:
    """A whole evaluation."""

    seconds: float
    """After imports, with the images in memory, see `gauntlet.bench.speed.measure.clock`."""
    standing: int
    """Number of images that are classified correctly, both when clean and in the attack's result."""
    attack_seconds: float = 0.0
    """Of these, the attack's: without clean accuracy, verification and records."""
    passes: tuple[float, float] = (0.0, 0.0)
    """Forward and backward passes of the attack, in images; of libraries only where the model counts them."""
    occupancy: float | None = None
    """Share of our slots that were filled, over all steps; None for libraries."""


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
    now: Callable[[], float] | None = None,
) -> WholeRun:
    """`gauntlet.evaluate` with an attack by its spec: verification and records are included.

    `now`: another clock than `clock`.
    """
    from gauntlet.bench.api import evaluate

    now = now or clock(device)
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
    seconds, (cost,) = now() - began, done.per_attack.to_dict("records")
    passes = len(data) * cost["forwards_per_sample"], len(data) * cost["backwards_per_sample"]
    return WholeRun(seconds, int(done.robust.sum()), cost["seconds"], passes, cost["occupancy"])


def library_whole_run(
    attack: Any,
    model: nn.Module,
    data: Data,
    seed: int,
    *,
    batch_size: int,
    device: torch.device,
    now: Callable[[], float] | None = None,
) -> WholeRun:
    """What a user of a library runs: passes over all images, the attack in batches, and passes over its result.

    `now`: another clock than `clock`.
    """
    now = now or clock(device)
    began = now()
    images, labels = data.images[:].to(device), data.labels.to(device)
    with timed("clean"):
        right = correct(model, images, labels, batch_size).nonzero().squeeze(1)
    with timed("attack"):
        chosen, truth = images[right], labels[right]
        started, before = now(), _passes(model)
        batches = zip(chosen.split(batch_size), truth.split(batch_size), strict=True)
        points = torch.cat([attack(model, some, classes, seed) for some, classes in batches])
        spent, after = now() - started, _passes(model)
    with timed("verify"):
        standing = int(correct(model, points, truth, batch_size).sum())
    made = after[0] - before[0], after[1] - before[1]
    return WholeRun(now() - began, standing, spent, made)


def _passes(model: nn.Module) -> tuple[int, int]:
    """The passes so far of a model that counts them."""
    return (model.forwards, model.backwards) if isinstance(model, Counted) else (0, 0)


def correct(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    """Whether the model's prediction is the label, bool (N,)."""
    with torch.no_grad():
        logits = torch.cat([model(part) for part in images.split(batch_size)])
    return logits.argmax(1) == labels
