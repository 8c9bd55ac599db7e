"""Estimating the cost of a plan: samples that are stored, and seconds for the others, from earlier runs or timed passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Literal

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.input_gradient import input_gradient
from gauntlet.attacks.ops.losses import margin
from gauntlet.attacks.ops.norms import project, steepest
from gauntlet.attacks.solving.stage import Stage
from gauntlet.attacks.solving.stage_conditions import InDoubt, Near
from gauntlet.attacks.solving.stage_cost import StageCost, stage_cost
from gauntlet.attacks.views.tf32 import kept_setting
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.environment.clock import synchronised_time
from gauntlet.bench.environment.foreign_exit import exits_reported
from gauntlet.bench.environment.provenance import device_name
from gauntlet.bench.executors.executable import Prepared, RunSettings
from gauntlet.bench.run.engine import Engine
from gauntlet.bench.run.stored_costs import StoredCost, seconds_a_sample, stored_costs
from gauntlet.bench.worker.attack_blocks import frozen
from gauntlet.leaderboard.results.record import DRAWS, CellError

_IMAGES = 64
_STEPS = 8
EARLY = 0.2
"""Share of the first stage's passes that a broken sample takes."""

Basis = Literal["", "before", "passes"]


@dataclass(frozen=True)
class CostEstimate:
    """The estimated cost of a cell."""

    title: str
    n: int
    stored: int
    """Number of samples that the store holds."""
    seconds: float | None
    """Expected for the other samples; None if unknown: errors, and certificates, replays, searches of other libraries and black
    boxes that were not run before."""
    basis: Basis = ""
    """`before`: the seconds of earlier runs of the attack on the same pipeline; `passes`: timed passes."""
    error: str = ""


@dataclass(frozen=True)
class Trial:
    """A PGD of a few steps on a few images, timed."""

    forward: float
    """Seconds of a forward pass for an image, in a batch."""
    backward: float
    single: float
    """Seconds of a forward pass for an image alone, as the verifier makes them."""
    correct: float
    """Share of the images that are classified correctly when clean."""
    standing: float
    """Share of those that stand after the last step."""


@dataclass
class _Known:
    """What has been found out for other cells."""

    before: list[StoredCost]
    trials: dict[tuple[object, ...], Trial] = field(default_factory=dict)
    stages: dict[tuple[object, ...], StageCost] = field(default_factory=dict)


def estimate(engine: Engine) -> list[CostEstimate]:
    """An estimate for each cell.

    Seconds are those that the attack cost a sample of the same pipeline before. Else a short PGD on each pipeline is timed, which
    says how many samples may stand, and the passes of a few steps of each stage are counted. Checks are not part of it.
    """
    known = _Known(stored_costs(engine.run.store, device_name(engine.settings.device)))
    with exits_reported():
        return [_cell(engine, cell, known) for cell in engine.run.plan.cells]


def _cell(engine: Engine, cell: Cell, known: _Known) -> CostEstimate:
    title = engine.run.plan.title(cell)
    ready = engine.prepare(cell)
    if isinstance(ready, CellError):
        return CostEstimate(title, 0, 0, None, error=ready.message)
    prepared = engine.workbench.prepare(cell, measured=ready.request.measured)
    n = len(prepared.data.labels)
    held = () if engine.config.fresh else (block for block in prepared.blocks if engine.run.store.has(block.key))
    stored = sum(len(block.indices) for block in held)
    if stored == n:
        return CostEstimate(title, n, stored, 0.0)
    each = seconds_a_sample(known.before, prepared.cell.info)
    if each is not None:
        return CostEstimate(title, n, stored, (n - stored) * each, "before")
    timeable = prepared.attack.stages or prepared.attack.gradient_steps is not None
    # The queries of a black box are counted, and may be dear.
    if not timeable or engine.workbench.model(cell.model).access != "white-box":
        return CostEstimate(title, n, stored, None)
    try:
        seconds = _expected(prepared, n - stored, known, engine.settings)
    except RuntimeError:  # the run itself will report it
        return CostEstimate(title, n, stored, None)
    return CostEstimate(title, n, stored, seconds, "passes")


def _expected(prepared: Prepared, n: int, known: _Known, settings: RunSettings) -> float:
    """Expected seconds of a cell: standing samples face every stage, broken ones leave the first stage early."""
    cell, stages = prepared.cell, prepared.attack.stages
    pipeline = (cell.model, str(cell.defense), cell.data, cell.threat)
    with frozen(prepared.defended, cell.info.seed):
        for low in (False, True) if any(stage.precision == "low" for stage in stages) else (False,):
            if (*pipeline, low) not in known.trials:
                known.trials[(*pipeline, low)] = _trial(prepared, _form(prepared, low=low), settings.device)
        for stage in stages:
            if (*pipeline, stage) not in known.stages:
                known.stages[(*pipeline, stage)] = _stage_cost(stage, prepared, settings.device)
    trial = known.trials[(*pipeline, False)]
    attacked = n * trial.correct
    broken = attacked * (1 - trial.standing)
    slots = settings.slots(prepared.data.images[0])
    seconds = broken * trial.single * (2 * DRAWS if cell.info.randomised else 2)
    seconds += attacked * (prepared.attack.gradient_steps or 0) * (trial.forward + trial.backward)
    for place, stage in enumerate(stages):
        cost = known.stages[(*pipeline, stage)]
        samples = (attacked - broken) * _facing(stage)
        if place == 0:
            samples += broken * (1.0 if stage.rule.minimum_norm else EARLY)
        speed = known.trials[(*pipeline, stage.precision == "low")]
        passes = cost.forwards * speed.forward + cost.backwards * speed.backward
        seconds += samples * passes + max(min(1.0, samples), samples / slots) * cost.seconds
    return seconds


def _facing(stage: Stage) -> float:
    """Expected share of the standing samples that face a stage, if they come near evenly and their gradients are of use."""
    if stage.when is None:
        return 1.0
    return min(1.0, stage.when.below) if isinstance(stage.when, Near | InDoubt) else 0.0


def _form(prepared: Prepared, *, low: bool) -> nn.Module:
    """The form of the pipeline that stages in low precision see, or that of all others."""
    light = prepared.light
    return light.module if low or light.full is None else light.full.module


def _stage_cost(stage: Stage, prepared: Prepared, device: torch.device) -> StageCost:
    images, labels = prepared.data.images[:2].to(device), prepared.data.labels[:2].to(device)
    threat, rejects = prepared.cell.threat, prepared.defended.rejects
    form = _form(prepared, low=stage.precision == "low")
    return stage_cost(stage, form, images, labels, threat, views=prepared.views, rejects=rejects)


def _trial(prepared: Prepared, model: nn.Module, device: torch.device) -> Trial:
    """Attack a few images by descent on the margin of a form of the pipeline."""
    images, labels = prepared.data.images[:_IMAGES].to(device), prepared.data.labels[:_IMAGES].to(device)
    threat, seconds, point = prepared.cell.threat, [], images
    for step in range(_STEPS):
        began = synchronised_time()
        point = point.detach().requires_grad_()
        with torch.enable_grad(), kept_setting():
            gradient = input_gradient(margin(model(point), labels), point)
        seconds.append(synchronised_time() - began)
        move = torch.zeros_like(images) if gradient is None else steepest(gradient.nan_to_num(), threat.norm)
        point = project(point.detach() - 2 * threat.eps * (1 - step / _STEPS) * move, images, threat)
    both, forward = median(seconds), _usual(partial(model, images))
    single = _usual(partial(prepared.defended, images[:1]))
    with torch.no_grad():
        correct, standing = (prepared.defended(one).argmax(1) == labels for one in (images, point))
    count = max(1, int(correct.sum()))
    return Trial(
        forward / len(images),
        max(0.0, both - forward) / len(images),
        single,
        float(correct.double().mean()),
        float((correct & standing).sum()) / count,
    )


def _usual(run: Callable[[], Tensor]) -> float:
    """Median seconds of five calls."""
    seconds = []
    for _ in range(5):
        began = synchronised_time()
        with torch.no_grad():
            run()
        seconds.append(synchronised_time() - began)
    return median(seconds)
