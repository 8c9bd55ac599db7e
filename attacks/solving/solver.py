"""The loop that every rule shares: slots filled, stepped, verified, freed, filled again.

A slot is freed as soon as its sample is broken or its budget spent, and goes to the next waiting sample, so that the batch
stays full until nobody waits; then it shrinks. A cascade is a row of lanes, one a stage: a sample that survives a stage joins
the queue of the next one that faces it, and the last lane that can fill a batch is the next to step, so that samples are
finished, and blocks stored, as early as full batches allow. Where memory runs out the batch is halved, and the run goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.random import Draws, model_randomness, sample_keys
from gauntlet.attacks.ops.validators import whole_number
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.stage_conditions import Masked
from gauntlet.attacks.solving.stage_queue import (
    Job,
    Lane,
    Leaving,
    Stage,
    close,
    departures,
    fill,
    halve,
    new_lane,
    size,
    step,
    turn,
)
from gauntlet.attacks.solving.task import Meter, Outcome, Task, Verification, Verify

__all__ = ["Meter", "Outcome", "Stage", "Task", "Verification", "Verify", "solve"]


def solve(
    attack: Rule[Any] | Sequence[Stage],
    model: nn.Module,
    task: Task,
    verify: Verify,
    *,
    batch_size: int = 256,
    verify_every: int = 1,
    classes: int | None = None,
    meter: Meter | None = None,
    views: Mapping[str, nn.Module] | None = None,
    rejects: bool = False,
) -> Iterator[Outcome]:
    """Run a rule, or the stages of a cascade, on every sample of `task`, yielding each outcome as soon as it is known.

    `model` maps images to logits and has frozen parameters. `verify_every`: candidates are verified at these steps and at
    the end of a restart only (a randomised model offers a candidate almost every step, and verifying it costs many draws).
    `classes`: how many the model has, for rules that must know; towards a class, rules see two. `views`: the modules that
    stages may be shown in place of the model, by name. `rejects`: the model has an output more, see `attacks.rejecting`.
    """
    whole_number("batch_size", batch_size, 1)
    meter = meter or Meter()
    stages = [Stage("", attack)] if isinstance(attack, Rule) else list(attack)
    classes = 2 if task.threat.target else classes
    lanes = [new_lane(stage, task, classes) for stage in stages]
    watch = any(stage.when is not None for stage in stages)
    outcomes = [Outcome(sample) for sample in range(len(task.ids))]
    limit = batch_size
    if watch and task.clean_logits is None:
        logits, limit = _clean_logits(model, task, limit, meter)
        task = replace(task, clean_logits=logits)
        for outcome in outcomes:
            outcome.forwards = 1
    job = Job(model, task, verify, verify_every, watch, views or {}, rejects)
    lanes[0].waiting.extend(range(len(task.ids)))
    while (lane := _next(lanes, limit)) is not None:
        try:
            leaving = _advance(lane, job, limit, meter)
        except RuntimeError as error:
            limit = _halved(limit, error, meter)
            for one in lanes:
                halve(one, limit)
            continue
        place = lanes.index(lane)
        for outcome, won in _settle(outcomes, lane, leaving):
            if won or (following := _following(lanes[place + 1 :], outcome)) is None:
                yield outcome
            else:
                following.waiting.append(outcome.sample)


def _clean_logits(model: nn.Module, task: Task, limit: int, meter: Meter) -> tuple[Tensor, int]:
    """Logits (N, K) of the clean images, which signs are measured by, and the batch size that they fitted into."""
    keys = sample_keys(task.seed, f"clean under {task.purpose}", task.ids, task.images.device)
    parts: list[Tensor] = []
    at = 0
    while at < len(keys):
        some = slice(at, at + limit)
        try:
            with torch.no_grad(), model_randomness(Draws.start(keys[some])):
                parts.append(model(task.images[some]))
            at += limit
        except RuntimeError as error:
            limit = _halved(limit, error, meter)
    return torch.cat(parts), limit


def _next(lanes: Sequence[Lane], limit: int) -> Lane | None:
    """The last lane that can fill a batch, else the first that has anybody."""
    full = (lane for lane in reversed(lanes) if lane.load >= limit)
    return next(full, None) or next((lane for lane in lanes if lane.load), None)


def _advance(lane: Lane, job: Job, limit: int, meter: Meter) -> Leaving | None:
    if turn(lane, job, limit) == "close":
        return close(lane, job, limit)
    fill(lane, job, limit)
    assert lane.running is not None
    count = size(lane.running.slots)
    leaving = step(lane, job)
    meter.steps += 1
    meter.slots += count
    meter.capacity += limit
    return leaving


def _following(lanes: Sequence[Lane], outcome: Outcome) -> Lane | None:
    """The first of the lanes whose stage faces the sample."""
    return next((lane for lane in lanes if lane.stage.when is None or lane.stage.when(outcome)), None)


def _halved(limit: int, error: RuntimeError, meter: Meter) -> int:
    """Half the batch, where memory ran out; any other error, and that of a single image, is raised again."""
    if limit == 1 or not _out_of_memory(error):
        raise error
    meter.halved += 1
    return limit // 2


def _out_of_memory(error: RuntimeError) -> bool:
    """torch has a class for the GPU only; for the CPU there is nothing but the text."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        torch.cuda.empty_cache()
        return True
    return "DefaultCPUAllocator: can't allocate memory" in str(error)


def _settle(outcomes: list[Outcome], lane: Lane, leaving: Leaving | None) -> Iterator[tuple[Outcome, bool]]:
    """Add what a stage cost to its samples' outcomes; yield each sample that leaves, and whether it is broken."""
    if leaving is None:
        return
    slots, _ = leaving
    for counts, won in departures(leaving):
        outcome = outcomes[counts["sample"]]
        passes = counts["forwards"] + counts["backwards"]
        outcome.forwards += counts["forwards"]
        outcome.backwards += counts["backwards"]
        outcome.rejected += counts["rejected"]
        outcome.disagreements += counts["disagreements"]
        outcome.taken += counts["restart"] * lane.stage.rule.budget + counts["step"]
        if isinstance(lane.stage.when, Masked):
            outcome.masked_fallback += passes
        kind = "probe"
        if counts["backwards"]:
            own = lane.stage.backward == "true" and not lane.stage.view
            kind = "gradient" if own else "substitute"
            outcome.gradients += counts["backwards"] if own else 0
            outcome.vanished += counts["vanished"] if own else 0
        outcome.nearest[kind] = min(outcome.near(kind), counts["nearness"])
        if won:
            outcome.adversarial, outcome.stage = slots.point[counts["row"]].clone(), lane.stage.label
        yield outcome, won
