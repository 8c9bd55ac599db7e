"""A worker in a process of its own, which code under evaluation may end, hang or damage without harm to this one.

This process imports neither torch nor code of the user's. The worker has a connection and no path of the results: what it prints
goes to standard error, and what it writes elsewhere is never read. When it ends, the request that it worked on fails with a
sentence that says how, and the next request starts a new one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.config.schema import ConfigError
from gauntlet.bench.environment.clock import now
from gauntlet.bench.environment.stopwatch import note_elsewhere
from gauntlet.bench.executors.example_index import FindExamples
from gauntlet.bench.worker.child import Child, ChildProcess
from gauntlet.bench.worker.frames import FrameError, Frames, Received, TooLongError
from gauntlet.bench.worker.messages import Failure, Message, decode
from gauntlet.bench.worker.request_bytes import encode_request, shapes_of
from gauntlet.bench.worker.seam import AnyRequest, Watch, WorkerSettings
from gauntlet.leaderboard.results.record import CellInfo
from gauntlet.leaderboard.results.spent import Spent

ENDED: Final = "WorkerEndedError"
"""The kind of failure where the process ended before its answer did."""


class ProcessWorker:
    """Answers requests in a process of its own, one after another. It is started by the first request."""

    def __init__(
        self, settings: WorkerSettings, examples: FindExamples, launch: Callable[[], Child] = ChildProcess
    ) -> None:
        """`examples`: finds the stored examples that replays try; `launch`: starts the process."""
        self.watch: Watch | None = None
        self._settings, self._examples, self._launch = settings, examples, launch
        self._child: Child | None = None
        self._frames: Frames | None = None
        self._ready, self._device = False, ""
        self._seconds: float | None = None
        self._deadline: float | None = None

    @property
    def device(self) -> str:
        """The name of the device, as results record it. Raises ConfigError if it is not available, RuntimeError."""
        with self._reported("starting"):
            self._connected()
        return self._device

    @property
    def versions(self) -> dict[str, str]:
        """The versions of Gauntlet, of its verifier and rules. Raises as `device`."""
        with self._reported("reading versions"):
            frames = self._connected()
            frames.send({"versions": {}})
            received = frames.receive()
            if received.kind != "versions" or not isinstance(received.fields, dict):
                raise FrameError(f"a message of kind {received.kind!r} in place of versions")
        return {str(name): str(version) for name, version in received.fields.items()}

    @contextlib.contextmanager
    def _reported(self, described: str) -> Iterator[None]:
        """Raise ConfigError or RuntimeError where the worker fails."""
        try:
            yield
        except _StartError as error:
            failed = error.failure
        except (EOFError, OSError, FrameError) as error:
            failed = self._failure(error, described)
            self.close()
        else:
            return
        raise (ConfigError if failed.usage else RuntimeError)(failed.message)

    def allow(self, seconds: float | None) -> None:
        """Limit all further work to so many seconds from now; None: no limit."""
        self._seconds = seconds
        self._deadline = None if seconds is None else time.monotonic() + seconds
        if self._frames is not None:
            self._frames.deadline = self._deadline

    def work(self, request: AnyRequest) -> Generator[Message]:
        """The messages for a request. The end of the process, a hang or a message that is none is a `Failure`."""
        whole, failed = False, None
        try:
            frames = self._connected()
            frames.send(*encode_request(request))
            while (received := frames.receive()).kind != "end":
                message = self._read(frames, received)
                if isinstance(message, Failure):
                    # Once the worker is ready for the next request.
                    failed = message
                elif message is not None:
                    yield message
            whole = True
            note_elsewhere(_spent(received.fields))
            if failed is not None:
                yield failed
        except _StartError as error:
            yield error.failure
        except (EOFError, OSError, FrameError, TooLongError) as error:
            yield self._failure(error, request.described)
        finally:
            if not whole:
                self.close()

    def close(self) -> None:
        """End the process, and what it started in its group."""
        if self._child is not None:
            self._child.end()
        self._child = self._frames = None

    def interrupt(self) -> None:
        """End the process at once; another thread may wait for it, whose request then fails."""
        if (child := self._child) is not None:
            child.kill()

    def start(self) -> None:
        """Start the process unless it runs. It imports what it needs, and no code of the user's before its first request."""
        if self._child is not None:
            return
        self._child = child = self._launch()
        self._frames, self._ready = Frames(child.connection, self._deadline, child.alive), False

    def _connected(self) -> Frames:
        """The connection to the process, once it is ready."""
        self.start()
        frames, child = self._frames, self._child
        assert frames is not None
        assert child is not None
        if self._ready:
            return frames
        # Starting takes none of the time that is allowed for work.
        began, frames.deadline = time.monotonic(), None
        frames.send({"start": {"argv": sys.argv, "path": child.path, "settings": dataclasses.asdict(self._settings)}})
        received = frames.receive()
        if received.kind == "ready":
            self._device, self._ready = str(received.fields["device"]), True
            if self._deadline is not None:
                self._deadline += time.monotonic() - began
            frames.deadline = self._deadline
            return frames
        failed = decode(received.text, received.content)
        self.close()
        assert isinstance(failed, Failure)
        raise _StartError(failed)

    def _read(self, frames: Frames, received: Received) -> Message | None:
        """The message that a frame holds; None for one that is meant for this object."""
        try:
            if received.kind == "share":
                if self.watch is not None:
                    self.watch(float(received.fields))
                return None
            if received.kind == "wanted":
                self._find(frames, received.fields)
                return None
            return decode(received.text, received.content)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise FrameError(f"a message of kind {received.kind!r} cannot be read ({error})") from error

    def _find(self, frames: Frames, wanted: dict[str, Any]) -> None:
        """Send the stored examples that a replay asks for."""
        threat, cell = ThreatModel(**wanted["threat"]), CellInfo.read(wanted["cell"])
        found = self._examples(threat, int(wanted["most"]), cell, [str(name) for name in wanted["ids"]])
        images = [image for several in found.values() for image in several]
        counts = [[sample, len(several)] for sample, several in found.items()]
        content = b"".join(image.tobytes() for image in images)
        frames.send({"examples": {"counts": counts, "images": shapes_of(images)}}, content)

    def _failure(self, error: Exception, described: str) -> Failure:
        """What happened to the worker, as a failure of the request."""
        if isinstance(error, TimeoutError):
            kind, happened = "TimeoutError", f"took longer than the limit of {self._seconds:g} s"
        elif isinstance(error, FrameError):
            kind, happened = "WorkerMessageError", f"sent what cannot be used: {error}"
        elif isinstance(error, TooLongError):
            kind, happened = "TooLongError", f"cannot be sent what it needs ({error})"
        else:
            assert self._child is not None
            kind, happened = ENDED, self._child.ending()
        return Failure(kind, f"the worker {happened} while {described}", "", {"time": now()})


class _StartError(Exception):
    """A worker cannot start with its settings."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _spent(fields: Any) -> Spent:
    try:
        seconds, stages = (
            {str(name): max(0.0, float(value)) for name, value in fields[part].items()}
            for part in ("seconds", "stages")
        )
        return Spent(seconds, stages)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return Spent()
