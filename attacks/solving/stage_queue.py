"""One stage of an attack: its samples that wait, the batch that runs, and the slots that have spent their steps.

A slot that has spent its steps leaves the batch at once. Its last iterate is evaluated when a quarter of a batch of such slots
has come together, and slots that start again wait until an eighth of the batch is free: small batches cost nearly as much as
full ones. Which samples share a batch changes no result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from gauntlet.attacks.ops.certainty import Certainty
from gauntlet.attacks.ops.random import sample_keys
from gauntlet.attacks.solving import lanes, look_ahead
from gauntlet.attacks.solving.ends import Ends, Orders
from gauntlet.attacks.solving.judge import OUTWARDS, judge
from gauntlet.attacks.solving.known import Rows, Truths, to_device, to_host
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.patience import look
from gauntlet.attacks.solving.slots import Slots, join, new_slots, select
from gauntlet.attacks.solving.stage import Stage
from gauntlet.attacks.solving.stage_state import Batch, StageQueue, merge, pick, rows_of, size, split
from gauntlet.attacks.solving.task import Task, Verify

_RESTING = 4
"""Batches of slots that may rest between two restarts before no new sample starts: their states take memory too."""


@dataclass(frozen=True)
class Shared:
    """What all stages of an attack share."""

    model: nn.Module
    task: Task
    verify: Verify
    verify_every: int
    watch: bool
    """Whether any stage asks how near the stages before it came."""
    views: Mapping[str, nn.Module] = field(default_factory=dict)
    """Modules that stages see in place of the model, by name."""
    rejects: bool = False
    """Whether the last output of the model is the rejection."""
    needs_gradient: bool = False
    """Whether a pass without a gradient is an error."""
    ends: Ends | None = None
    """Where the stages of each sample ended, if a later stage starts from there."""
    rivals: Mapping[int, int] = field(default_factory=dict)
    """The class that earlier stages of a sample came nearest to."""
    orders: Orders | None = None
    """The classes that a stage ranked for later ones; None if no stage does."""
    useful: Callable[[], int] | None = None
    """The smallest batch below which restarts run side by side; None: they run one after another."""
    low: nn.Module | None = None
    """The form of the model that stages in low precision see; None: the model itself."""
    room: int = 0
    """Images that a pass over several draws of a randomised model may have, see `gauntlet.attacks.parts.several_draws`."""
    certainty: Certainty | None = None
    """Which candidates are left to the caller to verify; None: none."""


Departures = tuple[Slots, Truths]
"""Slots that leave the stage, all their counts known to the host, and which of them are broken."""


def stage_queue(stage: Stage, task: Task, classes: int | None) -> StageQueue:
    """An empty queue. Its random numbers are keyed by the stage's label."""
    rule = stage.rule if classes is None else stage.rule.for_classes(classes)
    purpose = f"{task.purpose} {stage.label}".strip()
    device = task.images.device
    return StageQueue(
        replace(stage, rule=rule),
        sample_keys(task.seed, purpose, task.ids, device),
        sample_keys(task.seed, f"model under {purpose}", task.ids, device),
    )


def next_action(queue: StageQueue, batch_size: int) -> Literal["close", "step"]:
    """`close` once enough last iterates have come together, else `step`."""
    ended = size(queue.closing and queue.closing.slots)
    return "close" if ended and (4 * ended >= batch_size or ended == queue.load) else "step"


def fill(queue: StageQueue, shared: Shared, batch_size: int) -> None:
    """Give free slots to waiting samples, once an eighth of the batch is free, and to further restarts where few slots run."""
    _fill(queue, shared, batch_size)
    if shared.useful is not None and not queue.waiting and queue.parked is None and queue.resting is None:
        _widen(queue, shared, batch_size)


def _widen(queue: StageQueue, shared: Shared, batch_size: int) -> None:
    """Begin further restarts of the samples that run, up to the smallest useful batch."""
    rule, count = queue.stage.rule, size(queue.running and queue.running.slots)
    if queue.running is None or count == queue.lanes.widened or rule.total_restarts == 1:
        return
    if rule.minimum_norm or shared.useful is None:
        return
    if count < batch_size and (room := min(shared.useful(), batch_size) - count) > 0:
        pairs = lanes.further(queue.lanes, queue.running.slots, room, rule.total_restarts)
        if pairs:
            samples, restarts = np.array(pairs).T
            oracle = _oracle(queue, shared, _new(queue, shared, samples).restarted(restarts))
            state = rule.start(oracle)
            lanes.begun(queue.lanes, queue.running.slots, pairs)
            queue.running = merge(queue.running, Batch(oracle.slots, state))
    queue.lanes.widened = size(queue.running and queue.running.slots)


def _fill(queue: StageQueue, shared: Shared, batch_size: int) -> None:
    running = size(queue.running and queue.running.slots)
    free = batch_size - running
    if running and 8 * free < batch_size:
        return
    if queue.parked is not None and free:
        queue.parked, back = split(queue.parked, free)
        queue.running = merge(queue.running, back)
        free -= size(back.slots)
    # New samples first: if each kept its slot for all its restarts, the last few would share a small batch.
    crowded = size(queue.resting) >= _RESTING * batch_size
    new = 0 if crowded else min(free, len(queue.waiting))
    rested = None if queue.resting is None else select(queue.resting, rows_of(queue.resting)[: free - new])
    new = min(free - size(rested), len(queue.waiting))
    fresh = [queue.waiting[i] for i in range(new)]
    if not fresh and not size(rested):
        return
    slots = rested
    if fresh:
        begun = _new(queue, shared, np.array(fresh))
        slots = begun if slots is None else join(slots, begun)
    assert slots is not None
    oracle = _oracle(queue, shared, slots)
    state = queue.stage.rule.start(oracle)
    for _ in fresh:
        queue.waiting.popleft()
    if queue.resting is not None:
        left = rows_of(queue.resting)[size(rested) :]
        queue.resting = select(queue.resting, left) if len(left) else None
    queue.running = merge(queue.running, Batch(oracle.slots, state))


def step(queue: StageQueue, shared: Shared) -> Departures | None:
    """Make one step of the batch. Broken slots leave the stage; slots that have spent their steps go to `closing`.

    The host waits for the device once, to learn which slots have a candidate or stop early, and once more for the verdicts.
    """
    rule = queue.stage.rule
    assert queue.running is not None
    oracle = _oracle(queue, shared, queue.running.slots)
    look_ahead.allow(queue, oracle, shared.useful)
    state = rule.step(queue.running.state, oracle)
    slots, stops = _stops(queue, oracle.slots.stepped(), state)
    made, every = slots.known.step, shared.verify_every
    verifies = not rule.minimum_norm and (
        stops is not None or bool(((made >= rule.budget) | (made % every == 0)).any())
    )
    sure = slots.sure if verifies and shared.certainty is not None else None
    found, stopped, extra, certain = _answers(slots.found if verifies else None, stops, oracle.extra, sure, size(slots))
    slots = look_ahead.note(queue, oracle, slots, extra)
    ended, due = (slots.known.step >= rule.budget) | stopped, slots.known.step % every == 0
    rows = np.flatnonzero(found & (ended | due))
    slots, success = judge(slots, rows, certain[rows], shared.verify)
    broken = np.zeros_like(ended)
    leaving: Departures | None = None
    if len(rows):
        judged, won = select(slots, rows).reported(success[to_device(rows, success.device)])
        broken[rows] = won
        if won.any():
            leaving = select(judged, np.flatnonzero(won)), won[won]
    out = broken | ended
    after = Batch(slots, state)
    if not out.any():
        queue.running = after
        return None
    queue.running = pick(after, ~out)
    queue.closing = merge(queue.closing, pick(after, ended & ~broken))
    return None if leaving is None else lanes.settle(queue, *leaving)


def _stops(queue: StageQueue, slots: Slots, state: Any) -> tuple[Slots, Tensor | None]:
    """The slots, and which of them stop before their budget is spent, bool (N,); None where the rule has no such slots."""
    rule = queue.stage.rule
    stops = rule.finished(state)
    if queue.stage.patience:
        slots, hopeless = look(slots, rule.gap(state), queue.stage.patience, rule.budget)
        stops = hopeless if stops is None else stops | hopeless
    return slots, stops


def _answers(
    found: Tensor | None, stops: Tensor | None, extra: Tensor | None, sure: Tensor | None, count: int
) -> tuple[Truths, Truths, Rows, Truths]:
    """All on the host by one wait for the device; False and 0 where there is nothing to ask."""
    every = found, stops, extra, sure
    asked = [one for one in every if one is not None]
    answers = iter(to_host(*asked) if asked else ())
    first, second, third, last = (np.zeros(count) if one is None else next(answers) for one in every)
    return first > 0, second > 0, third.astype(np.int64), last > 0


def close(queue: StageQueue, shared: Shared, batch_size: int) -> Departures:
    """Evaluate the last iterates of at most `batch_size` slots that have spent their steps. Survivors with restarts left rest.

    The host waits for the device once, and once more where there are candidates, for the verdicts.
    """
    rule = queue.stage.rule
    assert queue.closing is not None
    rest, now = split(queue.closing, batch_size)
    point = rule.last(now.state)
    slots = now.slots
    if point is not None:
        oracle = _oracle(queue, shared, slots)
        oracle.logits(point)
        slots = oracle.slots
    slots, broken = slots.reported(slots.found)
    if broken.any():
        rows, outwards = np.flatnonzero(broken), OUTWARDS if rule.minimum_norm else ()
        slots, success = judge(slots, rows, slots.known.sure[rows] > 0, shared.verify, outwards)
        slots, broken = slots.reported(success)
    if rule.minimum_norm:
        # The closest example of a restart does not end the search for a closer one in the next.
        broken = broken & (slots.known.restart + 1 >= rule.total_restarts)
    queue.closing = rest
    return lanes.settle(queue, slots, broken)


def park_excess(queue: StageQueue, batch_size: int) -> None:
    """Take the slots beyond `batch_size` out of the batch. They wait, with their states."""
    if queue.running is not None and size(queue.running.slots) > batch_size:
        rest, queue.running = split(queue.running, batch_size)
        queue.parked = merge(queue.parked, rest)


def counts_of(departures: Departures) -> Iterator[tuple[dict[str, Any], bool]]:
    """For each slot that leaves: its counts as Python numbers, and whether it is broken."""
    slots, broken = departures
    names = (
        "sample",
        "restart",
        "step",
        "forwards",
        "backwards",
        "rejected",
        "disagreements",
        "nearness",
        "nearest_class",
        "vanished",
        "sure",
    )
    columns = [getattr(slots.known, name).tolist() for name in names]
    for row, won in enumerate(broken.tolist()):
        yield {"row": row, **{name: column[row] for name, column in zip(names, columns, strict=True)}}, won


def _new(queue: StageQueue, shared: Shared, samples: Rows) -> Slots:
    task, ends, uses = shared.task, shared.ends, queue.stage.rule.uses_ends
    rows = to_device(samples, task.images.device)
    labels = task.labels[rows]
    known = task.clean_logits
    rival = [shared.rivals.get(sample, -1) if queue.stage.rival_first else -1 for sample in samples.tolist()]
    return new_slots(
        rows,
        task.images[rows],
        labels,
        labels if task.targets is None else task.targets[rows],
        task.images.new_empty(len(rows), 0) if known is None else known[rows],
        queue.keys[rows],
        queue.model_keys[rows],
        ends.of(samples.tolist(), task.images[rows]) if ends is not None and uses else None,
        to_device(np.array(rival), task.images.device),
        shared.orders.of(samples.tolist(), first=queue.stage.rival_first) if shared.orders is not None else None,
        keep_end=ends is not None and not uses,
        known=samples,
    )


def _oracle(queue: StageQueue, shared: Shared, slots: Slots) -> Oracle:
    rule = queue.stage.rule
    view = shared.views[queue.stage.view] if queue.stage.view else None
    model = shared.model if shared.low is None or queue.stage.precision != "low" else shared.low
    oracle = Oracle(
        model if view is None else view,
        shared.task.threat,
        slots,
        minimum_norm=rule.minimum_norm,
        leaves_ball=rule.leaves_ball,
        watch=shared.watch,
        backward=queue.stage.backward,
        judge=None if view is None else shared.model,
        rejects=shared.rejects,
        needs_gradient=shared.needs_gradient,
    )
    oracle.room = shared.room
    if shared.certainty is not None and not rule.minimum_norm:
        oracle.certainty = shared.certainty.of(low=queue.stage.precision == "low")
    return oracle
