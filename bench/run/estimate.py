"""Estimating the cost of a plan: samples that are stored, and seconds for the others from a timed pass."""

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
class CostEstimate:
    """The estimated cost of a cell."""

    title: str
    n: int
    stored: int
    """Number of samples that the store holds."""
    seconds: float | None
    """Upper bound for the other samples, reached if no sample is broken early; None if unknown (whole attacks, errors)."""
    error: str = ""


def estimate(engine: Engine) -> list[CostEstimate]:
    """An estimate for each cell. A pass of each model with each defense is timed once."""
    speeds: dict[tuple[object, str], float] = {}
    return [_cell(engine, cell, speeds) for cell in engine.run.plan.cells]


def _cell(engine: Engine, cell: Cell, speeds: dict[tuple[object, str], float]) -> CostEstimate:
    title = engine.run.plan.title(cell)
    ready = engine.prepare(cell)
    if isinstance(ready, CellError):
        return CostEstimate(title, 0, 0, None, ready.message)
    prepared = engine.workbench.prepare(cell, measured=ready.request.measured)
    n = len(prepared.data.labels)
    stored = sum(len(block.indices) for block in prepared.blocks if engine.run.store.has(block.key))
    stages = prepared.attack.stages
    if not stages:
        return CostEstimate(title, n, stored, None if stored < n else 0.0)
    pair = (cell.model, str(cell.defense))
    if stored < n and pair not in speeds:
        speeds[pair] = _seconds_a_pass(prepared, engine.settings.device)
    passes = sum(stage.rule.budget * stage.rule.total_restarts for stage in stages)
    return CostEstimate(title, n, stored, (n - stored) * passes * speeds.get(pair, 0.0))


def _seconds_a_pass(prepared: Prepared, device: torch.device) -> float:
    """Seconds of a forward and a backward pass for an image, on the attacked form and, for low precision, the full form."""
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
