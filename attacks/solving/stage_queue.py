"""One stage of an attack: who waits for it, who is in its batch, and who has come to an end.

A slot that has spent its steps leaves the batch at once. Its last iterate is evaluated when a quarter of a batch has come
together, and who starts again waits until an eighth of the batch is free: small batches cost nearly as much as full ones.
Which samples are together changes no result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.random import sample_keys
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.slots import Slots, join, new_slots, select
from gauntlet.attacks.solving.stage_conditions import Sign
from gauntlet.attacks.solving.task import Task, Verify
from gauntlet.attacks.views.backward_modes import Backward

_RESTING = 4
"""Batches of slots that may rest between two restarts before no new sample begins: they take memory, too."""


@dataclass(frozen=True)
class Stage:
    """A rule in a cascade, and what it is called in records.

    `when`: the sign that a sample must show for the stage to face it; None: every sample that is left. `backward`: what
    passes gradients back through the model (`straight_through.backward_mode`). `view`: the name of the module that the rule
    is shown in place of the model, such as the undefended twin; empty: the model. `way`: what kind of attack it is, see
    `gauntlet.attacks.adaptive`.
    """

    label: str
    rule: Rule[Any]
    when: Sign | None = None
    backward: Backward = "true"
    view: str = ""
    way: str = "white-box"


class Batch(NamedTuple):
    """Slots, and the rule's state of each."""

    slots: Slots
    state: Any


@dataclass(frozen=True)
class Job:
    """What all lanes share."""

    model: nn.Module
    task: Task
    verify: Verify
    verify_every: int
    watch: bool
    """Whether any stage asks for signs."""
    views: Mapping[str, nn.Module] = field(default_factory=dict)
    """What stages are shown in place of the model, by name."""
    rejects: bool = False
    """Whether the model's last output is the rejection."""


@dataclass
class Lane:
    """A stage at work."""

    stage: Stage
    keys: Tensor
    model_keys: Tensor
    waiting: deque[int] = field(default_factory=deque)
    """Samples that have not begun."""
    resting: Slots | None = None
    """Slots that have not begun their next restart."""
    parked: Batch | None = None
    """Slots that had to leave the batch when it was halved."""
    running: Batch | None = None
    closing: Batch | None = None
    """Slots that have spent their steps; their last iterate is not evaluated yet."""

    @property
    def load(self) -> int:
        """Samples that are here."""
        batches = (self.parked, self.running, self.closing)
        return len(self.waiting) + size(self.resting) + sum(size(one and one.slots) for one in batches)


Leaving = tuple[Slots, Tensor]
"""Slots that leave the stage, and bool (N,), which of them are broken."""


def size(slots: Slots | None) -> int:
    """How many slots."""
    return 0 if slots is None else len(slots.sample)


def new_lane(stage: Stage, task: Task, classes: int | None) -> Lane:
    """An empty lane; its random numbers are keyed by the stage's label."""
    rule = stage.rule if classes is None else stage.rule.for_classes(classes)
    purpose = f"{task.purpose} {stage.label}".strip()
    device = task.images.device
    return Lane(
        replace(stage, rule=rule),
        sample_keys(task.seed, purpose, task.ids, device),
        sample_keys(task.seed, f"model under {purpose}", task.ids, device),
    )


def turn(lane: Lane, job: Job, limit: int) -> Literal["close", "step"]:
    """What the lane is to do next: evaluate last iterates once enough have come together, else a step."""
    ended = size(lane.closing and lane.closing.slots)
    return "close" if ended and (4 * ended >= limit or ended == lane.load) else "step"


def fill(lane: Lane, job: Job, limit: int) -> None:
    """Give free slots to those who wait, once an eighth of the batch is free."""
    running = size(lane.running and lane.running.slots)
    free = limit - running
    if running and 8 * free < limit:
        return
    if lane.parked is not None and free:
        lane.parked, back = _split(lane.parked, free)
        lane.running = _merge(lane.running, back)
        free -= size(back.slots)
    # New samples first: if each kept its slot for all its restarts, the last few would have a batch to themselves.
    crowded = size(lane.resting) >= _RESTING * limit
    new = 0 if crowded else min(free, len(lane.waiting))
    rested = None if lane.resting is None else select(lane.resting, _rows(lane.resting)[: free - new])
    new = min(free - size(rested), len(lane.waiting))
    fresh = [lane.waiting[i] for i in range(new)]
    if not fresh and not size(rested):
        return
    slots = rested
    if fresh:
        begun = _new(lane, job.task, torch.tensor(fresh, device=job.task.images.device))
        slots = begun if slots is None else join(slots, begun)
    assert slots is not None
    oracle = _oracle(lane, job, slots)
    state = lane.stage.rule.start(oracle)
    # Only now, since memory may run out above and then nobody must be lost.
    for _ in fresh:
        lane.waiting.popleft()
    if lane.resting is not None:
        left = _rows(lane.resting)[size(rested) :]
        lane.resting = select(lane.resting, left) if len(left) else None
    lane.running = _merge(lane.running, Batch(oracle.slots, state))


def step(lane: Lane, job: Job) -> Leaving | None:
    """One step of the batch. Broken slots leave the lane, those that have spent their steps go to `closing`."""
    rule = lane.stage.rule
    assert lane.running is not None
    oracle = _oracle(lane, job, lane.running.slots)
    state = rule.step(lane.running.state, oracle)
    slots = oracle.slots._replace(step=oracle.slots.step + 1)
    ended = slots.step >= rule.budget
    finished = rule.finished(state)
    if finished is not None:
        ended = ended | finished
    broken = torch.zeros_like(ended)
    if not rule.minimum_norm:
        slots, broken = _judge(slots, slots.found & (ended | (slots.step % job.verify_every == 0)), job.verify)
    out = broken | ended
    if not bool(out.any()):
        lane.running = Batch(slots, state)
        return None
    after = Batch(slots, state)
    lane.running = _pick(after, ~out)
    lane.closing = _merge(lane.closing, _pick(after, ended & ~broken))
    return select(slots, broken.nonzero().squeeze(1)), broken[broken]


def close(lane: Lane, job: Job, limit: int) -> Leaving:
    """Evaluate the last iterates of at most `limit` slots that have spent their steps; survivors with restarts left rest."""
    rule = lane.stage.rule
    assert lane.closing is not None
    rest, now = _split(lane.closing, limit)
    point = rule.last(now.state)
    slots = now.slots
    if point is not None:
        oracle = _oracle(lane, job, slots)
        oracle.logits(point)
        slots = oracle.slots
    slots, broken = _judge(slots, slots.found, job.verify)
    done = slots.restart + 1 >= rule.total_restarts
    if rule.minimum_norm:
        # The closest example of a restart does not end the search for a closer one in the next.
        broken = broken & done
    again = (~(broken | done)).nonzero().squeeze(1)
    if len(again):
        resting = select(slots, again)
        rested = resting._replace(restart=resting.restart + 1, step=torch.zeros_like(resting.step))
        lane.resting = rested if lane.resting is None else join(lane.resting, rested)
    lane.closing = rest
    gone = (broken | done).nonzero().squeeze(1)
    return select(slots, gone), broken[gone]


def halve(lane: Lane, limit: int) -> None:
    """Take out of the batch what exceeds `limit`: those slots wait, with all that they have reached."""
    if lane.running is not None and size(lane.running.slots) > limit:
        rest, lane.running = _split(lane.running, limit)
        lane.parked = _merge(lane.parked, rest)


def departures(leaving: Leaving) -> Iterator[tuple[dict[str, Any], bool]]:
    """For each slot that leaves: its counts as Python numbers, and whether it is broken."""
    slots, broken = leaving
    names = ("sample", "restart", "step", "forwards", "backwards", "rejected", "disagreements", "nearness", "vanished")
    columns = [getattr(slots, name).tolist() for name in names]
    for row, won in enumerate(broken.tolist()):
        yield {"row": row, **{name: column[row] for name, column in zip(names, columns, strict=True)}}, won


def _new(lane: Lane, task: Task, rows: Tensor) -> Slots:
    labels = task.labels[rows]
    known = task.clean_logits
    return new_slots(
        rows,
        task.images[rows],
        labels,
        labels if task.targets is None else task.targets[rows],
        task.images.new_empty(len(rows), 0) if known is None else known[rows],
        lane.keys[rows],
        lane.model_keys[rows],
    )


def _oracle(lane: Lane, job: Job, slots: Slots) -> Oracle:
    rule, watch = lane.stage.rule, job.watch
    ways = {"minimum_norm": rule.minimum_norm, "leaves_ball": rule.leaves_ball}
    view = job.views[lane.stage.view] if lane.stage.view else None
    return Oracle(
        job.model if view is None else view,
        job.task.threat,
        slots,
        **ways,
        watch=watch,
        backward=lane.stage.backward,
        judge=None if view is None else job.model,
        rejects=job.rejects,
    )


def _rows(slots: Slots) -> Tensor:
    return torch.arange(len(slots.sample), device=slots.sample.device)


def _pick(batch: Batch, which: Tensor) -> Batch | None:
    rows = which.nonzero().squeeze(1)
    return Batch(select(batch.slots, rows), select(batch.state, rows)) if len(rows) else None


def _split(batch: Batch, count: int) -> tuple[Batch | None, Batch]:
    """What is beyond the first `count` slots, and these."""
    if size(batch.slots) <= count:
        return None, batch
    rows = _rows(batch.slots)
    first = Batch(select(batch.slots, rows[:count]), select(batch.state, rows[:count]))
    return Batch(select(batch.slots, rows[count:]), select(batch.state, rows[count:])), first


def _merge(first: Batch | None, second: Batch | None) -> Batch | None:
    if first is None or second is None:
        return first or second
    return Batch(join(first.slots, second.slots), join(first.state, second.state))


def _judge(slots: Slots, due: Tensor, verify: Verify) -> tuple[Slots, Tensor]:
    """Verify the candidates that are due; refused ones go back to the attack. Returns the slots and who is broken."""
    rows = due.nonzero().squeeze(1)
    broken = torch.zeros_like(due)
    if not len(rows):
        return slots, broken
    verdict = verify(slots.point[rows], slots.sample[rows], slots.forwards[rows])
    broken = broken.index_copy(0, rows, verdict.success)
    refused = due & ~broken
    slots = slots._replace(
        rejected=slots.rejected.index_add(0, rows, verdict.rejected.to(torch.int64)),
        disagreements=slots.disagreements.index_add(0, rows, verdict.disagreement.to(torch.int64)),
        found=slots.found & ~refused,
        distance=torch.where(refused, torch.inf, slots.distance),
    )
    return slots, broken
