"""What a stage of an attack holds: its samples that wait, and batches of slots with the states of its rule."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from gauntlet.attacks.solving.known import Rows, Truths
from gauntlet.attacks.solving.slots import Slots, join, select
from gauntlet.attacks.solving.stage import Stage


class Batch(NamedTuple):
    """Slots, and the rule's state for each."""

    slots: Slots
    state: Any


@dataclass
class Lanes:
    """Restarts of a sample that run side by side, see `gauntlet.attacks.solving.lanes`."""

    first: dict[int, int] = field(default_factory=dict)
    """The earliest restart of each such sample that has not ended."""
    latest: dict[int, int] = field(default_factory=dict)
    """The latest one that was begun."""
    ended: dict[tuple[int, int], tuple[Slots, bool]] = field(default_factory=dict)
    """Restarts, by sample and number, that ended before an earlier one did, and whether they are broken."""
    spent: dict[int, float] = field(default_factory=dict)
    """Passes, by sample, of restarts that would not have been begun."""
    widened: int = -1
    """The number of slots at which the batch was widened last."""

    def copy(self) -> Lanes:
        """The same, to be changed apart."""
        return Lanes(dict(self.first), dict(self.latest), dict(self.ended), dict(self.spent), self.widened)


@dataclass
class StageQueue:
    """A stage with its samples."""

    stage: Stage
    keys: Tensor
    model_keys: Tensor
    waiting: deque[int] = field(default_factory=deque)
    """Samples that have not started."""
    resting: Slots | None = None
    """Slots between two restarts."""
    parked: Batch | None = None
    """Slots that left the batch when it was halved."""
    running: Batch | None = None
    closing: Batch | None = None
    """Slots that have spent their steps and whose last iterate is not evaluated yet."""

    lanes: Lanes = field(default_factory=Lanes)
    pace: float = 1.0
    """Steps that a slot made on average in the latest turn, of a rule that looks ahead."""

    def saved(self) -> Callable[[], None]:
        """A function that puts the samples and their slots back as they are now, after a turn that failed."""
        batches = self.resting, self.parked, self.running, self.closing
        waiting, lanes = self.waiting.copy(), self.lanes.copy()

        def restore() -> None:
            self.resting, self.parked, self.running, self.closing = batches
            self.waiting, self.lanes = waiting, lanes

        return restore

    @property
    def load(self) -> int:
        """Number of samples."""
        batches = (self.parked, self.running, self.closing)
        return len(self.waiting) + size(self.resting) + sum(size(one and one.slots) for one in batches)

    @property
    def samples(self) -> int:
        """Number of samples: restarts of a sample that run side by side count once."""
        if not self.lanes.first:
            return self.load
        running = {sample for slots in self._slots for sample in slots.known.sample.tolist()}
        return len(self.waiting) + len(running)

    @property
    def steps(self) -> int:
        """Steps that the slots of the stage have made, over all restarts."""
        budget, first = self.stage.rule.budget, self.lanes.first
        made = 0
        for known in (slots.known for slots in self._slots):
            made += int((known.step + known.restart * budget).sum())
            if first:
                pairs = zip(known.sample.tolist(), known.restart.tolist(), strict=True)
                made -= budget * sum(restart - first.get(sample, restart) for sample, restart in pairs)
        return made

    @property
    def _slots(self) -> list[Slots]:
        batches = [one.slots for one in (self.parked, self.running, self.closing) if one is not None]
        return [*batches, *([self.resting] if self.resting is not None else [])]


def size(slots: Slots | None) -> int:
    """Number of slots."""
    return 0 if slots is None else len(slots.sample)


def rows_of(slots: Slots) -> Rows:
    """The numbers of the slots, int64 (N,)."""
    return np.arange(size(slots))


def pick(batch: Batch, which: Truths) -> Batch | None:
    """The slots of the mask, bool (N,); None if there are none."""
    rows = np.flatnonzero(which)
    return Batch(select(batch.slots, rows), select(batch.state, rows)) if len(rows) else None


def split(batch: Batch, count: int) -> tuple[Batch | None, Batch]:
    """The slots after the first `count`, and the first `count`."""
    if size(batch.slots) <= count:
        return None, batch
    rows = rows_of(batch.slots)
    first = Batch(select(batch.slots, rows[:count]), select(batch.state, rows[:count]))
    return Batch(select(batch.slots, rows[count:]), select(batch.state, rows[count:])), first


def merge(first: Batch | None, second: Batch | None) -> Batch | None:
    """The slots of both; None if there are none."""
    if first is None or second is None:
        return first or second
    return Batch(join(first.slots, second.slots), join(first.state, second.state))
