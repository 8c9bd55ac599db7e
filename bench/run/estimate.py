"""What a plan would cost: what the store holds already, and an estimate for the rest from one timed pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.losses import ce
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.environment.device import synchronised_time
from gauntlet.bench.executors.executable import Prepared
from gauntlet.bench.run.engine import Engine
from gauntlet.leaderboard.results.record import CellError


@dataclass(frozen=True)
class Estimate:
    """A cell of a plan before it is run."""

    title: str
    n: int
    stored: int
    """Samples that the store answers."""
    seconds: float | None
    """At most, for the rest, if no sample is broken early; None where it is not known (whole attacks, errors)."""
    error: str = ""


def estimate(engine: Engine) -> list[Estimate]:
    """One entry a cell. A pass of each model behind each defense is timed once."""
    speeds: dict[tuple[object, str], float] = {}
    return [_cell(engine, cell, speeds) for cell in engine.run.plan.cells]


def _cell(engine: Engine, cell: Cell, speeds: dict[tuple[object, str], float]) -> Estimate:
    title = engine.run.plan.title(cell)
    ready = engine.prepare(cell)
    if isinstance(ready, CellError):
        return Estimate(title, 0, 0, None, ready.message)
    prepared = engine.workbench.prepare(cell)
    n = len(prepared.data.labels)
    stored = sum(len(block.indices) for block in prepared.blocks if engine.run.store.has(block.key))
    stages = prepared.attack.stages
    if not stages:
        return Estimate(title, n, stored, None if stored < n else 0.0)
    pair = (cell.model, str(cell.defense))
    if stored < n and pair not in speeds:
        speeds[pair] = _seconds_a_pass(prepared, engine.settings.device)
    passes = sum(stage.rule.budget * stage.rule.total_restarts for stage in stages)
    return Estimate(title, n, stored, (n - stored) * passes * speeds.get(pair, 0.0))


def _seconds_a_pass(prepared: Prepared, device: torch.device) -> float:
    """Forward and backward for one image, on the form that is attacked and, where low precision needs one, the second."""
    images, labels = prepared.data.images[:64].to(device), prepared.data.labels[:64].to(device)
    forms = (prepared.light, prepared.light.full)
    return sum(_fastest(form.module, images, labels) for form in forms if form is not None) / len(images)


def _fastest(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Seconds of the fastest of four batches."""
    seconds = []
    for _ in range(4):
        began = synchronised_time()
        x = images.clone().requires_grad_()
        torch.autograd.grad(ce(model(x), labels).sum(), x)
        seconds.append(synchronised_time() - began)
    return min(seconds)
