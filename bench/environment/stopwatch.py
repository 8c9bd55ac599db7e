"""Where a cell's seconds go: a stopwatch whose parts may lie within one another, each counting the time that is its own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from gauntlet.bench.environment.clock import synchronised_time
from gauntlet.leaderboard.results.spent import Part, Spent

T = TypeVar("T")


@dataclass
class Stopwatch:
    """Seconds by part. On a GPU a part ends once all queued work has."""

    seconds: dict[str, float] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    _open: list[Part] = field(default_factory=list)
    _since: float = 0.0

    def enter(self, part: Part) -> None:
        """From now on time is that of `part`."""
        self._settle()
        self._open.append(part)

    def leave(self) -> None:
        """From now on time is that of the part before."""
        self._settle()
        self._open.pop()

    def add_stages(self, seconds: Mapping[str, float]) -> None:
        """More seconds of an attack's stages, by label."""
        for label, spent in seconds.items():
            self.stages[label] = self.stages.get(label, 0.0) + spent

    def add(self, spent: Spent) -> None:
        """Seconds of another process, for which the part that runs has waited: they are not its own."""
        for part, seconds in spent.seconds.items():
            self.seconds[part] = self.seconds.get(part, 0.0) + seconds
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) - sum(spent.seconds.values())
        self.add_stages(spent.stages)

    @property
    def spent(self) -> Spent:
        """The seconds so far, of the parts that have ended."""
        # Where processes worked side by side, more may have been spent elsewhere than was waited for.
        return Spent({part: max(0.0, seconds) for part, seconds in self.seconds.items()}, dict(self.stages))

    @property
    def part(self) -> Part | None:
        """The part whose time runs; None before the first."""
        return self._open[-1] if self._open else None

    def _settle(self) -> None:
        now = synchronised_time()
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now


_running: ContextVar[Stopwatch | None] = ContextVar("stopwatch", default=None)


@contextmanager
def measured_by(stopwatch: Stopwatch) -> Iterator[None]:
    """Within the context, what is `timed` counts on this stopwatch, and everything else there as `other`."""
    token = _running.set(stopwatch)
    stopwatch.enter("other")
    try:
        yield
    finally:
        stopwatch.leave()
        _running.reset(token)


@contextmanager
def timed(part: Part) -> Iterator[None]:
    """The context's time is that of `part`, but for contexts within it. Also a decorator; without a stopwatch it does nothing."""
    stopwatch = _running.get()
    if stopwatch is None:
        yield
        return
    stopwatch.enter(part)
    try:
        yield
    finally:
        stopwatch.leave()


def timed_steps(part: Part, steps: Iterator[T]) -> Iterator[T]:
    """The same items: the time of making each is that of `part`; what is done with it in between is not."""
    while True:
        with timed(part):
            try:
                step = next(steps)
            except StopIteration:
                return
        yield step


def current_part() -> Part | None:
    """The part whose time runs now; None without a stopwatch."""
    stopwatch = _running.get()
    return None if stopwatch is None else stopwatch.part


def note_stages(seconds: Mapping[str, float]) -> None:
    """Add seconds of an attack's stages, by label, to the stopwatch that runs, if one does."""
    stopwatch = _running.get()
    if stopwatch is not None:
        stopwatch.add_stages(seconds)


def note_elsewhere(spent: Spent) -> None:
    """Add seconds that another process spent on this one's behalf to the stopwatch that runs, if one does."""
    stopwatch = _running.get()
    if stopwatch is not None:
        stopwatch.add(spent)


def process_age() -> float | None:
    """Seconds since this process was started; None where the system does not say (it is not Linux)."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
