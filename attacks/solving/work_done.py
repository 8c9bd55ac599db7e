"""The share of an attack's work that is done, in steps, estimated while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gauntlet.attacks.solving.stage_state import StageQueue
from gauntlet.attacks.solving.task import Outcome

EVERY = 0.2
"""Least seconds between two estimates."""


@dataclass
class StageTally:
    """What became of the samples of one stage so far."""

    offered: int = 0
    """Samples that survived the stages before."""
    faced: int = 0
    """Those that met the stage's condition."""
    broken: int = 0
    broken_steps: int = 0
    standing: int = 0
    standing_steps: int = 0

    @property
    def steps(self) -> int:
        """Steps of all samples that have left the stage."""
        return self.broken_steps + self.standing_steps


@dataclass
class WorkDone:
    """Reports the share of the work that is done, in 0..1.

    A sample in a stage is expected to take the steps that standing samples took, or `Stage.steps_expected`, until it is broken; a
    waiting sample is broken as often as those that have started, and meets conditions as often as those before.
    """

    queues: Sequence[StageQueue]
    report: Callable[[float], None]
    tallies: list[StageTally] = field(init=False)
    _taken: dict[int, int] = field(default_factory=dict)
    _due: float = 0.0

    def __post_init__(self) -> None:
        self.tallies = [StageTally() for _ in self.queues]
        self.tallies[0].offered = self.tallies[0].faced = self.queues[0].load

    def left(self, place: int, outcome: Outcome, following: int | None, *, broken: bool) -> None:
        """A sample has left the stage at `place` for the one at `following`; None: it is finished."""
        tally = self.tallies[place]
        steps = outcome.taken - self._taken.get(outcome.sample, 0)
        self._taken[outcome.sample] = outcome.taken
        if broken:
            tally.broken += 1
            tally.broken_steps += steps
            return
        tally.standing += 1
        tally.standing_steps += steps
        for between in self.tallies[place + 1 : following]:
            between.offered += 1
        if following is not None:
            self.tallies[following].offered += 1
            self.tallies[following].faced += 1

    def update(self) -> None:
        """Report, unless that was done a moment ago."""
        if (now := time.monotonic()) >= self._due:
            self._due = now + EVERY
            self.report(self.share())

    def share(self) -> float:
        """Steps that were made, of these and those that are expected."""
        made = left = later = 0.0
        for queue, tally in zip(reversed(self.queues), reversed(self.tallies), strict=True):
            full = tally.standing_steps / tally.standing if tally.standing else queue.stage.steps_expected
            spent, waiting = queue.steps, len(queue.waiting)
            started = max(1, tally.faced - waiting)
            chance = tally.broken / started
            mean = tally.broken_steps / tally.broken if tally.broken else 0.0
            fresh = chance * mean + (1 - chance) * (full + later)
            made += tally.steps + spent
            begun = queue.samples - waiting
            left += waiting * fresh + max(0.0, begun * full - spent) + begun * later
            prior = float(queue.stage.when is None)
            facing = tally.faced / tally.offered if tally.offered else prior
            later = facing * fresh + (1 - facing) * later
        return made / (made + left) if made else 0.0
