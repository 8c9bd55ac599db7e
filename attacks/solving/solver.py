"""The loop that all rules share: slots are filled, stepped, verified, freed and filled again.

A slot is freed as soon as its sample is broken or its budget is spent, and goes to the next waiting sample, so that the batch
stays full until no sample waits; then it shrinks. A cascade is a row of stage queues. A sample that survives a stage joins the
queue of the next stage that faces it. The last queue that can fill a batch is the next to step, so that samples are finished,
and blocks stored, as early as full batches allow. When memory runs out the batch is halved, and the run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.certainty import Certainty
from gauntlet.attacks.ops.random import Draws, model_randomness, sample_keys
from gauntlet.attacks.ops.validators import whole_number
from gauntlet.attacks.solving.batch_size import Meter, halved, run_in_batches
from gauntlet.attacks.solving.ends import Ends, Orders
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.stage import Stage, stages_for
from gauntlet.attacks.solving.stage_conditions import InDoubt, Masked
from gauntlet.attacks.solving.stage_queue import (
    Departures,
    Shared,
    close,
    counts_of,
    fill,
    next_action,
    park_excess,
    stage_queue,
    step,
)
from gauntlet.attacks.solving.stage_state import StageQueue, size
from gauntlet.attacks.solving.task import Outcome, Task, Verification, Verify
from gauntlet.attacks.solving.work_done import WorkDone
from gauntlet.attacks.views.backward_modes import INTERCEPTED

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
    progress: Callable[[float], None] | None = None,
    useful: Callable[[], int] | None = None,
    low: nn.Module | None = None,
    certainty: Certainty | None = None,
) -> Iterator[Outcome]:
    """Run a rule, or the stages of a cascade, on all samples of `task`, and yield each outcome as soon as it is known.

    `model` maps images to logits and has frozen parameters. `verify_every`: verify candidates at these steps and at the end of
    a restart only (a randomised model yields a candidate at almost every step, and each verification costs many draws).
    `classes`: number of classes of the model, for rules that depend on it; towards a class, rules see two. `views`: modules
    that stages may see in place of the model, by name. `rejects`: the last output of the model is the rejection, see
    `gauntlet.attacks.views.rejection_view`. `progress` is called now and then with the share of the work that is done.
    `useful`: gives the smallest batch that is worth a pass: where fewer slots run, further restarts run beside them
    (`gauntlet.attacks.solving.lanes`), which changes no outcome of a deterministic model; None, and `verify_every` above 1: one
    after another. `low`: the form of the model that stages in low precision see; None: the model itself. `certainty`:
    candidates that are sure by it end their sample's attack and are left to the caller to verify (`Outcome.unverified`), many
    in one pass; None: every candidate is verified at once. Raises ValueError for a batch size below 1.
    """
    whole_number("batch_size", batch_size, 1)
    meter = meter or Meter()
    classes = 2 if task.threat.target else classes
    stages = [Stage("", attack)] if isinstance(attack, Rule) else stages_for(attack, classes)
    queues = [stage_queue(stage, task, classes) for stage in stages]
    watch = any(stage.when is not None or stage.rival_first for stage in stages)
    outcomes = [Outcome(sample) for sample in range(len(task.ids))]
    coarse = certainty is not None and bool(certainty.coarse)
    if (watch or coarse) and task.clean_logits is None:
        logits, batch_size = _clean_logits(model, task, batch_size, meter)
        task = replace(task, clean_logits=logits)
        for outcome in outcomes:
            outcome.forwards = 1

    def verified(points: Tensor, samples: Tensor, attempt: Tensor) -> Verification:
        with meter.verification():
            return verify(points, samples, attempt)

    # Stages with conditions, or with stand-ins, are there for models that have no gradient.
    conditioned = any(stage.when is not None and not isinstance(stage.when, InDoubt) for stage in stages)
    needs_gradient = not conditioned and all(stage.backward not in INTERCEPTED for stage in stages)
    ends = Ends() if len(queues) > 1 and any(queue.stage.rule.uses_ends for queue in queues) else None
    rivals: dict[int, int] = {}
    orders = Orders(task.images.device) if any(stage.rule.ranks_targets for stage in stages) else None
    shared = Shared(
        model,
        task,
        verified,
        verify_every,
        watch,
        views or {},
        rejects,
        needs_gradient,
        ends,
        rivals,
        orders,
        useful if verify_every == 1 else None,
        low,
        batch_size,
        certainty,
    )
    queues[0].waiting.extend(range(len(task.ids)))
    work = WorkDone(queues, progress) if progress is not None else None
    left = len(task.ids)
    while (queue := _next(queues, batch_size)) is not None:
        restore = queue.saved()
        try:
            with meter.stage(queue.stage.label):
                departures = _advance(queue, shared, batch_size, meter)
        except RuntimeError as error:
            restore()
            batch_size = halved(batch_size, error, meter)
            shared = replace(shared, room=batch_size)
            for one in queues:
                park_excess(one, batch_size)
            continue
        place = queues.index(queue)
        for outcome, broken in _settle(outcomes, queue, departures, shared):
            following = None if broken else _following(queues, place, outcome)
            if work is not None:
                work.left(place, outcome, following, broken=broken)
            if following is None:
                for kept in (ends, orders):
                    if kept is not None:
                        kept.forget(outcome.sample)
                left -= 1
                yield outcome
            else:
                rivals[outcome.sample] = outcome.rival
                queues[following].waiting.append(outcome.sample)
        if work is not None:
            work.update()
    if left:
        raise AssertionError(f"{left} of {len(task.ids)} samples left the attack without an outcome")


def _clean_logits(model: nn.Module, task: Task, batch_size: int, meter: Meter) -> tuple[Tensor, int]:
    """Logits (N, K) of the clean images, which stage conditions need, and the batch size that fitted into memory."""
    keys = sample_keys(task.seed, f"clean under {task.purpose}", task.ids, task.images.device)

    def run(batch: slice) -> Tensor:
        with torch.no_grad(), model_randomness(Draws.start(keys[batch])):
            logits: Tensor = model(task.images[batch])
        return logits

    return run_in_batches(run, len(keys), batch_size, meter)


def _next(queues: Sequence[StageQueue], batch_size: int) -> StageQueue | None:
    """The last queue that can fill a batch, else the first that is not empty."""
    full = (queue for queue in reversed(queues) if queue.load >= batch_size)
    return next(full, None) or next((queue for queue in queues if queue.load), None)


def _advance(queue: StageQueue, shared: Shared, batch_size: int, meter: Meter) -> Departures | None:
    if next_action(queue, batch_size) == "close":
        return close(queue, shared, batch_size)
    fill(queue, shared, batch_size)
    assert queue.running is not None
    count = size(queue.running.slots)
    departures = step(queue, shared)
    meter.steps += 1
    meter.slots += count
    meter.capacity += batch_size
    return departures


def _following(queues: Sequence[StageQueue], place: int, outcome: Outcome) -> int | None:
    """The number of the first queue after `place` whose stage faces the sample."""
    later = ((number, queues[number].stage.when) for number in range(place + 1, len(queues)))
    return next((number for number, when in later if when is None or when(outcome)), None)


def _settle(
    outcomes: list[Outcome], queue: StageQueue, departures: Departures | None, shared: Shared
) -> Iterator[tuple[Outcome, bool]]:
    """Add the costs of a stage to the outcomes of its samples; yield each outcome, and whether the sample is broken.

    Where stages with gradients ended is kept in `ends`, unless half of the gradients vanished.
    """
    if departures is None:
        return
    slots, _ = departures
    ends, orders = shared.ends, shared.orders
    for counts, broken in counts_of(departures):
        outcome = outcomes[counts["sample"]]
        passes = counts["forwards"] + counts["backwards"]
        outcome.forwards += counts["forwards"]
        outcome.backwards += counts["backwards"]
        outcome.rejected += counts["rejected"]
        outcome.disagreements += counts["disagreements"]
        outcome.taken += counts["restart"] * queue.stage.rule.budget + counts["step"]
        if isinstance(queue.stage.when, Masked):
            outcome.masked_fallback += passes
        outcome.faced += _faced(queue.stage)
        outcome.speculative += queue.lanes.spent.pop(outcome.sample, 0.0)
        kind = "review" if queue.stage.precision == "review" else "probe"
        if counts["backwards"]:
            own = queue.stage.backward == "true" and not queue.stage.view
            kind = ("smoothed" if queue.stage.rule.smooths else "gradient") if own else "substitute"
            outcome.gradients += counts["backwards"] if own else 0
            outcome.vanished += counts["vanished"] if own else 0
        if counts["nearness"] < outcome.near(*outcome.nearest):
            outcome.rival = counts["nearest_class"]
        outcome.nearest[kind] = min(outcome.near(kind), counts["nearness"])
        if broken:
            outcome.adversarial, outcome.stage = slots.point[counts["row"]].clone(), queue.stage.label
            outcome.unverified = bool(counts["sure"])
        elif orders is not None and queue.stage.rule.ranks_targets:
            orders.add(outcome.sample, slots.order[counts["row"]])
        elif ends is not None and slots.end.dim() > 2 and counts["backwards"] > 2 * counts["vanished"]:
            ends.add(outcome.sample, slots.end[counts["row"]])
        yield outcome, broken


def _faced(stage: Stage) -> tuple[str, ...]:
    if stage.precision == "review":
        return ()
    return (f"{stage.label}:low",) if stage.precision == "low" else (stage.label,)
