"""A request that several workers answer: its blocks in tasks, and the messages of all tasks as those of one worker."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from gauntlet.bench.worker.messages import Failure, Message
from gauntlet.bench.worker.request import Request
from gauntlet.bench.worker.seam import AnyRequest
from gauntlet.leaderboard.results.spent import Spent

_MOST: Final = 50
"""Blocks of a task: a worker attacks those of a task together, and small batches cost more for each sample."""
_WAITING: Final = 8
"""Messages that may wait to be taken: blocks are in memory until they are stored."""
_LOOK: Final = 0.5
"""Seconds after which whoever waits looks whether the request is still wanted."""


@dataclass(frozen=True)
class Task:
    """What one worker does at once: the request, or some of its blocks."""

    request: AnyRequest
    number: int = 0
    whole: int = 0
    """Number of its blocks, those included that workers finished which then died over it."""
    tries: int = 0
    """How often a worker has died over it."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the blocks to run."""
        return self.request.run if isinstance(self.request, Request) else ()

    def rest(self, keys: Sequence[str]) -> Task:
        """The task once more with the blocks that are left, after a worker has died over it."""
        request = replace(self.request, run=tuple(keys)) if isinstance(self.request, Request) else self.request
        return replace(self, request=request, tries=self.tries + 1)

    def finished(self, share: float) -> float:
        """Blocks that are done, where this share of those that are left is."""
        return self.whole - (1 - share) * len(self.keys)


def tasks_of(request: AnyRequest, workers: int) -> list[Task]:
    """A request as tasks for so many workers: one for each, unless it has very many blocks."""
    if not isinstance(request, Request) or not request.run:
        return [Task(request)]
    size = min(_MOST, -(-len(request.run) // max(1, workers)))
    parts = [request.run[start : start + size] for start in range(0, len(request.run), size)]
    return [Task(replace(request, run=keys), number, len(keys)) for number, keys in enumerate(parts)]


@dataclass(frozen=True)
class Share:
    """This part of a task's blocks, in 0..1, is done."""

    task: Task
    done: float


@dataclass(frozen=True)
class _Ended:
    """A task has ended."""


Event: TypeAlias = Message | Share | Spent
_LAST: Final = _Ended()


class StoppedError(Exception):
    """The workers were stopped while a request was answered."""


@dataclass(eq=False)
class SharedRequest:
    """A request that is being answered. One thread takes its messages; each worker's thread puts those of its task."""

    request: AnyRequest
    due: deque[Task]
    """Tasks that no worker has."""
    running: int = 0
    cancelled: bool = False
    failed: Failure | None = None
    _events: queue.Queue[Event | _Ended] = field(default_factory=lambda: queue.Queue(_WAITING))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> Task | None:
        """A task to work on, if one is due."""
        with self._lock:
            if self.cancelled or not self.due:
                return None
            self.running += 1
            return self.due.popleft()

    def put(self, event: Event | _Ended) -> bool:
        """Hand an event on; False where nobody wants it any more."""
        while not self.cancelled:
            try:
                self._events.put(event, timeout=_LOOK)
            except queue.Full:
                continue
            return True
        return False

    def end(self, again: Task | None = None, failure: Failure | None = None) -> None:
        """A task has ended: in full, or `again` is left of it, or it failed, and then no further task begins."""
        with self._lock:
            self.running -= 1
            if failure is not None:
                self.failed = self.failed or failure
                self.due.clear()
            elif again is not None:
                self.due.appendleft(again)
        self.put(_LAST)

    def fail(self, failure: Failure) -> None:
        """No worker is left for what is due."""
        with self._lock:
            if not self.due:
                return
            self.failed = self.failed or failure
            self.due.clear()
        self.put(_LAST)

    def cancel(self) -> None:
        """Nobody wants more of it."""
        with self._lock:
            self.cancelled = True
            self.due.clear()

    def _unfinished(self) -> bool:
        # A task is at every moment due, running, or has put what it had.
        with self._lock:
            return bool(self.running or self.due) or not self._events.empty()

    def events(self) -> Iterator[Event]:
        """What tasks put, until all have ended. Raises StoppedError once it is cancelled; what has arrived comes first."""
        while self._unfinished():
            try:
                event = self._events.get(timeout=_LOOK)
            except queue.Empty:
                if self.cancelled:
                    raise StoppedError from None
                continue
            if not isinstance(event, _Ended):
                yield event
        if self.cancelled:
            raise StoppedError
