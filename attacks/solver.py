"""The loop that every rule shares: slots filled, stepped, verified, freed, filled again.

A slot is freed as soon as its sample is broken or its budget spent, and goes to the next waiting sample, so that the
batch stays full until nobody waits; then it shrinks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gauntlet.attacks.oracle import Oracle
from gauntlet.attacks.random import sample_keys
from gauntlet.attacks.rule import Rule
from gauntlet.attacks.slots import Slots, join, new_slots, put, select
from gauntlet.attacks.threat import ThreatModel


@dataclass(frozen=True)
class Task:
    """The samples to attack: images (N, C, H, W) in [0, 1] and labels (N,) on the model's device, with unique ids."""

    images: Tensor
    labels: Tensor
    ids: Sequence[str]
    threat: ThreatModel
    seed: int
    purpose: str
    """Names the attack in the keys of its random numbers."""


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


@dataclass(frozen=True)
class Outcome:
    """One sample's end: `adversarial` (C, H, W) is the verified example, None where none was found."""

    sample: int
    adversarial: Tensor | None
    forwards: float
    backwards: float
    steps: int
    """Steps until the success, over all restarts; -1 without one."""
    rejected: int
    disagreements: int


def solve(
    rule: Rule[Any],
    model: nn.Module,
    task: Task,
    verify: Verify,
    *,
    batch_size: int = 256,
    verify_every: int = 1,
) -> Iterator[Outcome]:
    """Run `rule` on every sample of `task`, yielding each outcome as soon as it is known.

    `model` maps images to logits and has frozen parameters. `verify_every`: candidates are verified at these steps and at
    the end of a restart only (a randomised model offers a candidate almost every step, and verifying it costs many draws).
    """
    device = task.images.device
    keys = sample_keys(task.seed, task.purpose, task.ids, device)
    model_keys = sample_keys(task.seed, f"model under {task.purpose}", task.ids, device)
    waiting = deque(range(len(task.ids)))
    slots: Slots | None = None
    state: Any = None

    def oracle_for(these: Slots) -> Oracle:
        return Oracle(model, task.threat, these, minimum_norm=rule.minimum_norm)

    def begin(these: Slots) -> tuple[Slots, Any]:
        oracle = oracle_for(these)
        begun = rule.start(oracle)
        return oracle.slots, begun

    def admit(count: int) -> Slots:
        rows = torch.tensor([waiting.popleft() for _ in range(min(count, len(waiting)))], device=device)
        return new_slots(rows, task.images[rows], task.labels[rows], keys[rows], model_keys[rows])

    while waiting or slots is not None:
        if slots is None:
            slots, state = begin(admit(batch_size))
        elif waiting and len(slots.sample) < batch_size:
            fresh, begun = begin(admit(batch_size - len(slots.sample)))
            slots, state = join(slots, fresh), join(state, begun)
        oracle = oracle_for(slots)
        state = rule.step(state, oracle)
        slots = oracle.slots._replace(step=oracle.slots.step + 1)
        ended = slots.step >= rule.budget
        finished = rule.finished(state)
        if finished is not None:
            ended = ended | finished
        rows = ended.nonzero().squeeze(1)
        if len(rows):
            slots = _evaluate_last(rule, state, slots, rows, oracle_for)
        slots, broken = _judge(rule, slots, ended, verify, verify_every)
        over = broken | (ended & (slots.restart + 1 >= rule.tries))
        again = (ended & ~over).nonzero().squeeze(1)
        if len(again):
            resting = select(slots, again)
            fresh, begun = begin(resting._replace(restart=resting.restart + 1, step=torch.zeros_like(resting.step)))
            slots, state = put(slots, again, fresh), put(state, again, begun)
        leaving = over.nonzero().squeeze(1)
        if len(leaving):
            yield from _outcomes(rule, select(slots, leaving), broken[leaving])
            staying = (~over).nonzero().squeeze(1)
            slots, state = (select(slots, staying), select(state, staying)) if len(staying) else (None, None)


def _evaluate_last(rule: Rule[Any], state: Any, slots: Slots, rows: Tensor, oracle_for: Any) -> Slots:
    """Let the oracle see the last iterate of the slots at `rows`, which has cost no pass yet."""
    point = rule.last(select(state, rows))
    # A candidate that waits already would be verified anyway: the pass is saved.
    if point is None:
        return slots
    if not rule.minimum_norm:
        open_rows = (~slots.found[rows]).nonzero().squeeze(1)
        rows, point = rows[open_rows], point[open_rows]
    if not len(rows):
        return slots
    oracle: Oracle = oracle_for(select(slots, rows))
    oracle.logits(point)
    return put(slots, rows, oracle.slots)


def _judge(rule: Rule[Any], slots: Slots, ended: Tensor, verify: Verify, every: int) -> tuple[Slots, Tensor]:
    """Verify the candidates that are due; refused ones go back to the attack. Returns the slots and who is broken."""
    due = slots.found & (ended if rule.minimum_norm else ended | (slots.step % every == 0))
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
    if rule.minimum_norm:
        # The closest example of a restart does not end the search for a closer one in the next.
        broken = broken & (slots.restart + 1 >= rule.tries)
    return slots, broken


def _outcomes(rule: Rule[Any], slots: Slots, broken: Tensor) -> Iterator[Outcome]:
    won = broken.tolist()
    taken = (slots.restart * rule.budget + slots.step).tolist()
    points = slots.point
    for i, (sample, forwards, backwards, rejected, disagreements) in enumerate(
        zip(
            slots.sample.tolist(),
            slots.forwards.tolist(),
            slots.backwards.tolist(),
            slots.rejected.tolist(),
            slots.disagreements.tolist(),
            strict=True,
        )
    ):
        yield Outcome(
            sample=sample,
            adversarial=points[i].clone() if won[i] else None,
            forwards=forwards,
            backwards=backwards,
            steps=taken[i] if won[i] else -1,
            rejected=rejected,
            disagreements=disagreements,
        )
