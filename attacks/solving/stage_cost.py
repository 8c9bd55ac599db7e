"""The cost of a stage for a sample that it leaves standing, from a few of its steps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.slots import Slots
from gauntlet.attacks.solving.stage import Stage
from gauntlet.attacks.solving.stage_queue import Shared, fill, stage_queue, step
from gauntlet.attacks.solving.stage_state import StageQueue
from gauntlet.attacks.solving.task import Task, Verification

_STEPS = 3


@dataclass(frozen=True)
class StageCost:
    """What all steps and restarts of a stage cost, as far as they are expected (`Stage.steps_expected`)."""

    forwards: float
    """Passes of a sample."""
    backwards: float
    seconds: float
    """Of all steps on the few images that were given: what steps cost whatever the number of samples in the batch."""


def stage_cost(
    stage: Stage,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    views: Mapping[str, nn.Module] | None = None,
    rejects: bool = False,
) -> StageCost:
    """The cost of a stage, extrapolated from three steps on the images (N, C, H, W), which nothing breaks."""
    ids = [str(row) for row in range(len(images))]
    with torch.no_grad():
        logits = model(images)
    classes = logits.shape[1] - rejects
    targets = (labels + 1) % classes if threat.target else None
    task = Task(images, labels, ids, threat, 0, "estimate", targets, logits)
    queue = stage_queue(stage, task, 2 if threat.target else classes)
    queue.waiting.extend(range(len(ids)))
    shared = Shared(model, task, _never, 1, watch=True, views=views or {}, rejects=rejects)
    fill(queue, shared, len(ids))
    rule = queue.stage.rule
    seconds: list[float] = []
    counts = [_counts(queue)]
    while queue.running is not None and len(seconds) < min(_STEPS, rule.budget):
        began = time.perf_counter()
        step(queue, shared)
        counts.append(_counts(queue))
        seconds.append(time.perf_counter() - began)
    restarts, steps = rule.total_restarts, queue.stage.steps_expected
    forwards, backwards = (
        restarts * begun + steps * (ended - begun) / max(1, len(seconds))
        for begun, ended in zip(counts[0], counts[-1], strict=True)
    )
    return StageCost(forwards, backwards, steps * (median(seconds) if seconds else 0.0))


def _counts(queue: StageQueue) -> tuple[float, float]:
    """Mean forward and backward passes of the slots."""
    held: list[Slots] = [batch.slots for batch in (queue.running, queue.closing) if batch is not None]
    forwards, backwards = (
        np.concatenate([getattr(slots.known, name) for slots in held]) for name in ("forwards", "backwards")
    )
    return float(forwards.mean()), float(backwards.mean())


def _never(points: Tensor, samples: Tensor, attempt: Tensor) -> Verification:
    nothing = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    return Verification(nothing, nothing, nothing)
