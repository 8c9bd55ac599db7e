"""The loop that every rule shares: slots filled, stepped, verified, freed, filled again.

A slot is freed as soon as its sample is broken or its budget spent, and goes to the next waiting sample, so that the batch
stays full until nobody waits; then it shrinks. A cascade is a row of lanes, one a stage: a sample that survives a stage joins
the next lane's queue at once, and the last lane that can fill a batch is the next to step, so that samples are finished, and
blocks stored, as early as full batches allow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gauntlet.attacks.oracle import Oracle
from gauntlet.attacks.random import sample_keys
from gauntlet.attacks.rule import Rule, whole
from gauntlet.attacks.slots import Slots, join, new_slots, put, select
from gauntlet.attacks.threat import ThreatModel


@dataclass(frozen=True)
class Stage:
    """A rule in a cascade, and what it is called in records."""

    label: str
    rule: Rule[Any]


@dataclass(frozen=True)
class Task:
    """The samples to attack: images (N, C, H, W) in [0, 1] and labels (N,) on the model's device, with unique ids.

    Raises ValueError where `targets` and the threat model's target do not go together, or a target is the sample's label.
    """

    images: Tensor
    labels: Tensor
    ids: Sequence[str]
    threat: ThreatModel
    seed: int
    purpose: str
    """Names the attack in the keys of its random numbers."""
    targets: Tensor | None = None
    """int64 (N,), the class that each sample is to be moved to, as `threat.targets` gives them; None: any other class."""

    def __post_init__(self) -> None:
        if (self.targets is None) != (not self.threat.target):
            given = "no targets are" if self.targets is None else "targets are"
            raise ValueError(f"{given} given for threat model {self.threat}: give threat.targets(labels, classes)")
        if self.targets is not None and bool((self.targets == self.labels).any()):
            first = self.ids[int((self.targets == self.labels).nonzero()[0])]
            raise ValueError(f"sample {first} has its target as label: nothing is to be attacked there, leave it out")


@dataclass(frozen=True)
class Verdict:
    """What the verifier says of N candidates, all tensors of length N."""

    success: Tensor
    """bool: finite, in the box, within eps (unless the rule seeks the minimum norm), misclassified."""
    rejected: Tensor
    """bool: not finite, outside the box, or outside the ball."""
    disagreement: Tensor
    """bool: misclassified in one batch composition only."""


class Verify(Protocol):
    """Judges candidates on the original model. `attempt` (N,) tells repeated candidates of a sample apart."""

    def __call__(self, points: Tensor, samples: Tensor, attempt: Tensor) -> Verdict:
        """`points` (N, C, H, W) are candidates for the samples (N,), indices into the task."""
        ...


@dataclass
class Outcome:
    """One sample's end, with what all stages together cost."""

    sample: int
    adversarial: Tensor | None = None
    """(C, H, W), the verified example; None where none was found."""
    forwards: float = 0
    backwards: float = 0
    taken: int = 0
    """Steps, over all stages and restarts."""
    rejected: int = 0
    disagreements: int = 0
    stage: str = ""
    """Label of the stage that broke it; empty without success."""

    @property
    def steps(self) -> int:
        """Steps until the success; -1 without one."""
        return self.taken if self.adversarial is not None else -1


@dataclass
class Meter:
    """How full the batches were: `steps` made, and `slots` that took part in them."""

    batch_size: int = 0
    steps: int = 0
    slots: int = 0

    @property
    def occupancy(self) -> float:
        """Share of the batch's slots that were filled, a mean over the steps."""
        return self.slots / (self.steps * self.batch_size) if self.steps else 0.0


@dataclass
class _Lane:
    """One stage: who waits for it, and who is in its batch."""

    stage: Stage
    keys: Tensor
    model_keys: Tensor
    waiting: deque[int] = field(default_factory=deque)
    slots: Slots | None = None
    state: Any = None

    @property
    def load(self) -> int:
        return len(self.waiting) + (0 if self.slots is None else len(self.slots.sample))


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
) -> Iterator[Outcome]:
    """Run a rule, or the stages of a cascade, on every sample of `task`, yielding each outcome as soon as it is known.

    `model` maps images to logits and has frozen parameters. `verify_every`: candidates are verified at these steps and at
    the end of a restart only (a randomised model offers a candidate almost every step, and verifying it costs many draws).
    `classes`: how many the model has, for rules that must know; towards a class, rules see two.
    """
    whole("batch_size", batch_size, 1)
    meter = meter or Meter()
    meter.batch_size = batch_size
    classes = 2 if task.threat.target else classes
    lanes = [_lane(stage, task, classes) for stage in ([Stage("", attack)] if isinstance(attack, Rule) else attack)]
    lanes[0].waiting.extend(range(len(task.ids)))
    outcomes = [Outcome(sample) for sample in range(len(task.ids))]
    while (lane := _next(lanes, batch_size)) is not None:
        _fill(lane, model, task, batch_size)
        assert lane.slots is not None
        meter.steps += 1
        meter.slots += len(lane.slots.sample)
        leaving, broken = _step(lane, model, task, verify, verify_every)
        place = lanes.index(lane)
        for slot, won in _settle(outcomes, lane, leaving, broken):
            if won or place + 1 == len(lanes):
                yield outcomes[slot]
            else:
                lanes[place + 1].waiting.append(slot)


def _lane(stage: Stage, task: Task, classes: int | None) -> _Lane:
    rule = stage.rule if classes is None else stage.rule.for_classes(classes)
    purpose = f"{task.purpose} {stage.label}".strip()
    device = task.images.device
    return _Lane(
        Stage(stage.label, rule),
        sample_keys(task.seed, purpose, task.ids, device),
        sample_keys(task.seed, f"model under {purpose}", task.ids, device),
    )


def _next(lanes: Sequence[_Lane], batch_size: int) -> _Lane | None:
    """The last lane that can fill a batch, else the first that has anybody."""
    full = (lane for lane in reversed(lanes) if lane.load >= batch_size)
    return next(full, None) or next((lane for lane in lanes if lane.load), None)


def _oracle(lane: _Lane, model: nn.Module, task: Task, slots: Slots) -> Oracle:
    rule = lane.stage.rule
    return Oracle(model, task.threat, slots, minimum_norm=rule.minimum_norm, roams=rule.roams)


def _begin(lane: _Lane, model: nn.Module, task: Task, slots: Slots) -> tuple[Slots, Any]:
    oracle = _oracle(lane, model, task, slots)
    begun = lane.stage.rule.start(oracle)
    return oracle.slots, begun


def _fill(lane: _Lane, model: nn.Module, task: Task, batch_size: int) -> None:
    """Give the free slots to waiting samples."""
    free = batch_size - (0 if lane.slots is None else len(lane.slots.sample))
    count = min(free, len(lane.waiting))
    if not count:
        return
    rows = torch.tensor([lane.waiting.popleft() for _ in range(count)], device=task.images.device)
    targets = task.labels if task.targets is None else task.targets
    fresh = new_slots(rows, task.images[rows], task.labels[rows], targets[rows], lane.keys[rows], lane.model_keys[rows])
    slots, begun = _begin(lane, model, task, fresh)
    if lane.slots is None:
        lane.slots, lane.state = slots, begun
    else:
        lane.slots, lane.state = join(lane.slots, slots), join(lane.state, begun)


def _step(lane: _Lane, model: nn.Module, task: Task, verify: Verify, verify_every: int) -> tuple[Slots, Tensor]:
    """One step of a lane's batch. Takes the slots that are done out of it, and returns them and who of them is broken."""
    rule = lane.stage.rule
    assert lane.slots is not None
    oracle = _oracle(lane, model, task, lane.slots)
    state = rule.step(lane.state, oracle)
    slots = oracle.slots._replace(step=oracle.slots.step + 1)
    ended = slots.step >= rule.budget
    finished = rule.finished(state)
    if finished is not None:
        ended = ended | finished
    broken = torch.zeros_like(ended)
    if not rule.minimum_norm:
        slots, broken = _judge(slots, slots.found & (ended | (slots.step % verify_every == 0)), verify)
    # After the judgement: a broken sample saves the pass, one whose candidate was refused does not lose the iterate.
    rows = (ended & ~broken).nonzero().squeeze(1)
    if len(rows):
        slots = _evaluate_last(lane, model, task, state, slots, rows)
        slots, late = _judge(slots, slots.found & ended & ~broken, verify)
        broken = broken | late
    if rule.minimum_norm:
        # The closest example of a restart does not end the search for a closer one in the next.
        broken = broken & (slots.restart + 1 >= rule.tries)
    over = broken | (ended & (slots.restart + 1 >= rule.tries))
    again = (ended & ~over).nonzero().squeeze(1)
    if len(again):
        resting = select(slots, again)
        rested = resting._replace(restart=resting.restart + 1, step=torch.zeros_like(resting.step))
        fresh, begun = _begin(lane, model, task, rested)
        slots, state = put(slots, again, fresh), put(state, again, begun)
    gone = over.nonzero().squeeze(1)
    leaving = select(slots, gone)
    staying = (~over).nonzero().squeeze(1)
    if not len(staying):
        lane.slots, lane.state = None, None
    elif len(gone):
        lane.slots, lane.state = select(slots, staying), select(state, staying)
    else:
        lane.slots, lane.state = slots, state
    return leaving, broken[gone]


def _evaluate_last(lane: _Lane, model: nn.Module, task: Task, state: Any, slots: Slots, rows: Tensor) -> Slots:
    """Let the oracle see the last iterate of the slots at `rows`, which has cost no pass yet."""
    point = lane.stage.rule.last(select(state, rows))
    if point is None:
        return slots
    oracle = _oracle(lane, model, task, select(slots, rows))
    oracle.logits(point)
    return put(slots, rows, oracle.slots)


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


def _settle(outcomes: list[Outcome], lane: _Lane, leaving: Slots, broken: Tensor) -> Iterator[tuple[int, bool]]:
    """Add what a stage cost to its samples' outcomes; yield each sample that leaves, and whether it is broken."""
    taken = (leaving.restart * lane.stage.rule.budget + leaving.step).tolist()
    fields = (leaving.sample, leaving.forwards, leaving.backwards, leaving.rejected, leaving.disagreements, broken)
    columns = (field.tolist() for field in fields)
    for row, (sample, forwards, backwards, rejected, disagreements, won) in enumerate(zip(*columns, strict=True)):
        outcome = outcomes[sample]
        outcome.forwards += forwards
        outcome.backwards += backwards
        outcome.rejected += rejected
        outcome.disagreements += disagreements
        outcome.taken += taken[row]
        if won:
            outcome.adversarial, outcome.stage = leaving.point[row].clone(), lane.stage.label
        yield sample, won
