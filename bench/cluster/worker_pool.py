"""Several workers as one: a request's blocks are shared out over them, and what a dead worker had is done by another."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Final

from gauntlet.bench.cluster.shared_request import Share, SharedRequest, StoppedError, tasks_of
from gauntlet.bench.cluster.slot import Slot
from gauntlet.bench.config.schema import ConfigError
from gauntlet.bench.environment.stopwatch import Stopwatch, measured_by, note_elsewhere
from gauntlet.bench.worker.messages import BlockRecord, Failure, Message, PreparedCell
from gauntlet.bench.worker.process_worker import ENDED, ProcessWorker
from gauntlet.bench.worker.request import Request
from gauntlet.bench.worker.seam import AnyRequest, Watch
from gauntlet.leaderboard.results.spent import Spent

_log = logging.getLogger(__name__)

MAX_RETRIES: Final = 3
"""How often a task is begun again whose worker died, and how often a worker that does not start is started again."""
_LOOK: Final = 1.0
"""Seconds between two looks at how many workers there can be."""
_AGAIN: Final = 0.2
"""Seconds after which a thread that has not ended is interrupted again."""


class WorkerPool:
    """A worker made of several, each with a thread here. Several threads may have a request worked on at once.

    Tasks are given out in the order of the requests. `watch` is that of the thread that sets it.
    """

    def __init__(self, make: Callable[[], ProcessWorker], capacity: Callable[[], int]) -> None:
        """`make`: a worker that has not started; `capacity`: how many there can be at present, asked now and then."""
        self._make, self._capacity = make, capacity
        self._local = threading.local()
        self._changed = threading.Condition()
        self._requests: deque[SharedRequest] = deque()
        self._slots: list[Slot] = []
        self._versions: Mapping[str, str] | None = None
        self._device = ""
        self._problem: Exception | None = None
        self._closed = False
        self._closing = threading.Event()
        self._seconds: float | None = None
        self._grow()
        self._growing = threading.Thread(target=self._keep_growing, name="gauntlet-workers", daemon=True)
        self._growing.start()

    @property
    def watch(self) -> Watch | None:
        """Called with the share of a request's blocks that is done, in 0..1, of the requests of this thread."""
        found: Watch | None = getattr(self._local, "watch", None)
        return found

    @watch.setter
    def watch(self, value: Watch | None) -> None:
        self._local.watch = value

    @property
    def size(self) -> int:
        """Number of workers that run or are being started, at least 1."""
        with self._changed:
            return max(1, sum(not slot.ended for slot in self._slots))

    @property
    def device(self) -> str:
        """The name of the first worker's device. Raises ConfigError or RuntimeError where no worker can start."""
        self._started()
        return self._device

    @property
    def versions(self) -> Mapping[str, str]:
        """The versions of Gauntlet, of its verifier and rules, which all workers have. Raises as `device`."""
        self._started()
        return self._versions or {}

    def _started(self) -> None:
        """Wait until a worker has started."""
        with self._changed:
            self._changed.wait_for(lambda: self._versions is not None or self._none_left() or self._closed)
            if self._versions is None:
                raise self._problem or RuntimeError("the workers were stopped")

    def allow(self, seconds: float | None) -> None:
        """Limit each further task to so many seconds; None: no limit."""
        self._seconds = seconds

    def work(self, request: AnyRequest) -> Generator[Message]:
        """The messages for a request, of all its tasks; a `Failure` is the last. What other tasks have finished comes before it.

        Raises KeyboardInterrupt where the workers are stopped.
        """
        if isinstance(request, Request) and request.run and request.expected is not None:
            # Nothing is attacked before it is known that the model still answers as it did.
            for message in self._shared(replace(request, run=())):
                yield message
                if isinstance(message, Failure):
                    return
            request = replace(request, expected=None)
        yield from self._shared(request)

    def _shared(self, request: AnyRequest) -> Generator[Message]:
        tasks = tasks_of(request, self.size)
        shared = SharedRequest(request, deque(tasks))
        blocks, done = sum(task.whole for task in tasks), [0.0] * len(tasks)
        prepared = False
        with self._changed:
            if self._closed:
                raise KeyboardInterrupt
            self._requests.append(shared)
            if self._none_left():
                shared.fail(self._failure())
            self._changed.notify_all()
        watch = self.watch
        try:
            for event in shared.events():
                if isinstance(event, Spent):
                    note_elsewhere(event)
                elif isinstance(event, Share):
                    if watch is not None and blocks:
                        done[event.task.number] = event.task.finished(event.done)
                        watch(sum(done) / blocks)
                elif not (isinstance(event, PreparedCell) and prepared):
                    prepared = prepared or isinstance(event, PreparedCell)
                    yield event
            if shared.failed is not None:
                yield shared.failed
        except StoppedError:
            raise KeyboardInterrupt from None
        finally:
            self._forget(shared)

    def close(self) -> None:
        """End all workers. Requests that are being worked on end, once what has arrived is taken."""
        with self._changed:
            self._closed = True
            self._closing.set()
            for shared in self._requests:
                shared.cancel()
            slots = list(self._slots)
            self._changed.notify_all()
        self._growing.join()
        for slot in slots:
            while slot.thread.is_alive():
                slot.worker.interrupt()
                slot.thread.join(_AGAIN)

    def _forget(self, shared: SharedRequest) -> None:
        shared.cancel()
        with self._changed:
            with contextlib.suppress(ValueError):
                self._requests.remove(shared)
            for slot in self._slots:
                if slot.shared is shared:
                    slot.worker.interrupt()

    def _grow(self) -> None:
        """Begin more workers where there can be more."""
        capacity = self._capacity()
        with self._changed:
            if self._closed or self._none_left():
                return
            # A place whose worker has ended is not tried again while it is there; places that are gone count no more.
            for slot in [slot for slot in self._slots if slot.ended][: max(0, len(self._slots) - capacity)]:
                self._slots.remove(slot)
            for _ in range(capacity - len(self._slots)):
                slot = Slot(self._make())
                slot.thread = threading.Thread(target=self._serve, args=(slot,), name="gauntlet-worker", daemon=True)
                self._slots.append(slot)
                slot.thread.start()

    def _keep_growing(self) -> None:
        while not self._closing.wait(_LOOK):
            self._grow()

    def _none_left(self) -> bool:
        return bool(self._slots) and all(slot.ended for slot in self._slots)

    def _failure(self) -> Failure:
        problem = self._problem or RuntimeError("no worker is left")
        return Failure(type(problem).__name__, str(problem), "", {}, usage=isinstance(problem, ConfigError))

    def _serve(self, slot: Slot) -> None:
        """The thread of a worker: start it, and give it tasks."""
        try:
            while self._connected(slot):
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or self._next(slot))
                    if self._closed:
                        return
                self._run(slot)
        except Exception as error:
            _log.exception("a worker's thread has ended")
            self._problem = error
            if slot.shared is not None:
                slot.shared.end(failure=Failure(type(error).__name__, str(error), "", {}))
        finally:
            with contextlib.suppress(Exception):
                slot.worker.close()
            with self._changed:
                slot.ended = True
                if self._none_left() and not self._closed:
                    for shared in self._requests:
                        shared.fail(self._failure())
                self._changed.notify_all()

    def _connected(self, slot: Slot) -> bool:
        """Whether the worker has started, and has the versions of the others."""
        for _ in range(MAX_RETRIES):
            if self._closed:
                return False
            try:
                # It may be another process than before, or have ended meanwhile.
                slot.worker.allow(self._seconds)
                device, versions = slot.worker.device, slot.worker.versions
            except ConfigError as error:
                self._problem = error
                return False
            except RuntimeError as error:
                self._problem = error
                continue
            with self._changed:
                if self._versions is None:
                    self._versions, self._device = versions, device
                    self._changed.notify_all()
                if versions == self._versions:
                    return True
                differ = sorted(dict(versions.items() ^ self._versions.items()))
            _log.warning(
                "a worker is not used: its versions of %s are not those of the others; install the same version of "
                "robust-gauntlet on all machines",
                ", ".join(differ),
            )
            return False
        return False

    def _next(self, slot: Slot) -> bool:
        """Give the worker the first task that is due; False if there is none."""
        for shared in self._requests:
            if (task := shared.take()) is not None:
                slot.shared, slot.task = shared, task
                return True
        return False

    def _run(self, slot: Slot) -> None:
        """Have the worker do its task, and hand its messages on."""
        shared, task = slot.shared, slot.task
        assert shared is not None
        assert task is not None

        def watch_share(share: float) -> None:
            shared.put(Share(task, share))

        slot.worker.watch = watch_share
        slot.worker.allow(self._seconds)
        left, failure, answered, watch = dict.fromkeys(task.keys), None, False, Stopwatch()
        with measured_by(watch), closing(slot.messages(task.request)) as messages:
            for message in messages:
                if isinstance(message, Failure):
                    failure = message
                elif not shared.put(message):
                    break
                else:
                    answered = answered or not isinstance(message, BlockRecord)
                if isinstance(message, BlockRecord):
                    left.pop(message.key, None)
        shared.put(watch.spent)
        slot.shared = slot.task = None
        done = answered and not left
        again = None
        if failure is not None and failure.kind == ENDED and task.tries < MAX_RETRIES and not done:
            again = task.rest(tuple(left))
            _log.info("%s: begun again by another worker", failure.message)
        shared.end(again, None if again is not None or (done and failure and failure.kind == ENDED) else failure)
        with self._changed:
            self._changed.notify_all()
