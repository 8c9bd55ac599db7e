"""Measurement of an attack: seconds, passes counted by a wrapper of the model, and verified robust accuracy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.losses import ce
from gauntlet.attacks.ops.norms import distance, limit
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.registry.card import AnyAttack
from gauntlet.attacks.solving.batch_size import useful_batch
from gauntlet.attacks.solving.solver import Meter, Stage, Task, Verification, Verify, solve
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.environment.clock import synchronised_time
from gauntlet.bench.environment.device import peak_memory
from gauntlet.bench.verify.verifier import Verifier

_LEAST, _ENOUGH = 2, 10.0
"""Least number of measurements of the bare passes, and the seconds after which they end."""


def clock(device: torch.device) -> Callable[[], float]:
    """What seconds are measured by: on a GPU of a clock, once its queued work has ended; on a CPU those of this process.

    The processor's own seconds leave out what other programs on the machine take. They add up over threads.
    """
    return synchronised_time if device.type == "cuda" else time.process_time


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Within the context torch computes with so many threads of the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Workload:
    """The samples of all participants: images (N, C, H, W) in [0, 1] that the model classifies correctly."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    ids: Sequence[str]
    logits: Tensor
    """Logits (N, K) of the images."""
    total: int
    """Number of all samples, misclassified ones included; robust accuracy is a share of these."""
    batch_size: int
    data: Data | None = None
    """All samples, misclassified ones included, for whole evaluations; None: attacks alone are measured."""


@dataclass(frozen=True)
class AttackRun:
    """A run of an attack."""

    seconds: float
    """Seconds of the attack alone, without verification, see `clock`."""
    forwards: int
    """Forward passes in images, counted by the wrapper of the model."""
    backwards: int
    standing: Tensor
    """bool (N,), samples without a verified adversarial example inside the ball."""
    distance: float
    """Median of the verified distances, in the norm; infinite where fewer than half are broken."""
    peak_mib: float = 0.0
    """Peak memory during the attack: of the GPU's allocator, or the resident memory of the process."""
    occupancy: float | None = None
    """Share of our slots that were filled, over all steps; None for libraries."""


class Counted(nn.Module):
    """Counts the images that pass forwards and backwards through a model."""

    def __init__(self, model: nn.Module) -> None:
        """Starts at 0."""
        super().__init__()
        self.model = model
        self.forwards = 0
        self.backwards = 0

    def forward(self, images: Tensor) -> Tensor:
        """The model's logits."""
        count = len(images)
        self.forwards += count
        logits: Tensor = self.model(images)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: self._back(count))
        return logits

    def _back(self, count: int) -> None:
        self.backwards += count


def measure(
    attack: AnyAttack,
    stages: Sequence[Stage],
    work: Workload,
    attacked: nn.Module,
    threat: ThreatModel,
    seed: int,
    *,
    minimum_norm: bool,
) -> AttackRun:
    """Run an attack once on `attacked`: our stages, or else the attack of a library; examples are judged on the original model.

    `minimum_norm`: the attack seeks the smallest distance; samples with one above eps stand.
    """
    verify = Verifier(work.model, work.images, work.labels, work.ids, threat, seed=seed, minimum_norm=minimum_norm)
    counted, meter = Counted(attacked), Meter()
    now, judged = clock(work.images.device), 0.0

    def judge(points: Tensor, samples: Tensor, attempt: Tensor) -> Verification:
        nonlocal judged
        began = now()
        verdict = verify(points, samples, attempt)
        judged += now() - began
        return verdict

    with peak_memory(work.images.device) as peak:
        began = now()
        if stages:
            points, success = run_native(stages, work, counted, attacked, threat, seed, judge, meter)
        else:
            points, success = run_library(attack, work, counted, seed)
        seconds = now() - began - judged
    if not stages:
        every = torch.arange(len(points), device=points.device)
        success = verify(points, every, torch.zeros_like(every)).success
    far = torch.where(success.to(points.device), distance(points, work.images, threat.norm), torch.inf)
    occupancy = meter.occupancy if stages else None
    made = counted.forwards, counted.backwards
    return AttackRun(seconds, *made, far > limit(threat), far.median().item(), peak.mib, occupancy)


def run_native(
    stages: Sequence[Stage],
    work: Workload,
    model: nn.Module,
    plain: nn.Module,
    threat: ThreatModel,
    seed: int,
    verify: Verify,
    meter: Meter,
) -> tuple[Tensor, Tensor]:
    """Examples (N, C, H, W) of our stages, and which are verified, bool (N,). `plain`: `model` without the counting wrapper."""
    # As `gauntlet run` does: restarts run side by side where a pass over few images takes as long as one over more.
    useful = partial(useful_batch, plain, work.images[:1], work.batch_size)
    task = Task(work.images, work.labels, work.ids, threat, seed, "speed", clean_logits=work.logits)
    points: list[Tensor] = list(work.images)
    success = [False] * len(work.ids)
    settings: dict[str, Any] = {"batch_size": work.batch_size, "classes": work.logits.shape[1], "meter": meter}
    for outcome in solve(stages, model, task, verify, **settings, useful=useful):
        if outcome.adversarial is not None:
            points[outcome.sample], success[outcome.sample] = outcome.adversarial, True
    return torch.stack(points), torch.tensor(success)


def run_library(attack: Any, work: Workload, model: nn.Module, seed: int) -> tuple[Tensor, Tensor]:
    """Points (N, C, H, W) of a library's attack, in batches; none is verified yet."""
    parts = [
        attack(model, images, labels, seed)
        for images, labels in zip(work.images.split(work.batch_size), work.labels.split(work.batch_size), strict=True)
    ]
    return torch.cat(parts), torch.zeros(len(work.ids), dtype=torch.bool)


@dataclass(frozen=True)
class BarePasses:
    """Seconds per image in a full batch: forward pass alone, and forward with backward pass to the input."""

    forward: float
    both: float

    def seconds(self, forwards: float, backwards: float) -> float:
        """Seconds of that many passes."""
        return self.forward * (forwards - backwards) + self.both * backwards


def bare_passes(work: Workload, model: nn.Module, repeats: int = 9) -> BarePasses:
    """Measure the passes alone, with frozen parameters: medians of `repeats`, or of as many as fit into ten seconds."""
    images, labels = work.images[: work.batch_size], work.labels[: work.batch_size]
    alone: list[float] = []
    both: list[float] = []
    now = clock(images.device)
    while len(both) < repeats and (len(both) < _LEAST or sum(both) < _ENOUGH):
        began = now()
        with torch.no_grad():
            model(images)
        alone.append(now() - began)
        began = now()
        x = images.clone().requires_grad_()
        torch.autograd.grad(ce(model(x), labels).sum(), x)
        both.append(now() - began)
    return BarePasses(median(alone) / len(images), median(both) / len(images))
