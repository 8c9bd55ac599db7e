"""The process of a worker: it answers the requests that arrive over a connection, until that is closed.

`gauntlet.bench.worker.process_worker` starts it. Whatever else the process does, its other end believes nothing but the messages,
and checks those.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from queue import SimpleQueue
from typing import TYPE_CHECKING

from gauntlet.bench.environment.uncollected import uncollected
from gauntlet.bench.worker.frames import FrameError, Frames, Received, TooLongError

if TYPE_CHECKING:
    from gauntlet.attacks.ops.threat import ThreatModel
    from gauntlet.bench.executors.example_index import Examples
    from gauntlet.bench.worker.seam import AnyRequest
    from gauntlet.bench.worker.work import LocalWorker
    from gauntlet.leaderboard.results.record import CellInfo


def main() -> None:
    """Serve the connection whose file descriptor is the first argument."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    # A process that evaluated code starts or forks is no worker.
    connection.set_inheritable(False)
    os.register_at_fork(after_in_child=connection.close)
    frames = Frames(connection)
    with uncollected():
        from gauntlet.bench.worker.messages import encode
        from gauntlet.bench.worker.request_bytes import decode_request
        from gauntlet.bench.worker.seam import WorkerSettings
        from gauntlet.bench.worker.work import LocalWorker, failure

    started = frames.receive().fields
    sys.argv, sys.path[:] = started["argv"], started["path"] or sys.path
    arrived: SimpleQueue[Received] = SimpleQueue()
    threading.Thread(target=_listen, args=(frames, arrived), daemon=True).start()
    settings = WorkerSettings(**{**started["settings"], "plugins": tuple(started["settings"]["plugins"])})
    try:
        worker = LocalWorker.of(settings, _Asking(frames, arrived))
    except Exception as error:
        frames.send(*encode(failure(error)))
        return
    worker.watch = lambda share: frames.send({"share": share})
    frames.send({"ready": {"device": worker.device}})
    while True:
        received = arrived.get()
        if received.kind == "versions":
            frames.send({"versions": worker.versions})
            continue
        request = decode_request(received.text, received.content)
        _answer(frames, worker, request)


def _listen(frames: Frames, arrived: SimpleQueue[Received]) -> None:
    """Put what arrives into the queue. At the end of the connection the process ends, whatever it is doing."""
    try:
        while True:
            arrived.put(frames.receive())
    except (EOFError, OSError, FrameError):
        os._exit(1)


def _answer(frames: Frames, worker: LocalWorker, request: AnyRequest) -> None:
    from gauntlet.bench.environment.stopwatch import Stopwatch, measured_by
    from gauntlet.bench.worker.messages import encode
    from gauntlet.bench.worker.work import failure

    watch = Stopwatch()
    with measured_by(watch), closing(worker.work(request)) as messages:
        try:
            for message in messages:
                frames.send(*encode(message))
        except TooLongError as error:
            frames.send(*encode(failure(error)))
    frames.send({"end": dataclasses.asdict(watch.spent)})


class _Asking:
    """Finds stored examples by asking the other end, which has the store."""

    def __init__(self, frames: Frames, arrived: SimpleQueue[Received]) -> None:
        self._frames, self._arrived = frames, arrived

    def __call__(self, threat: ThreatModel, most: int, cell: CellInfo, ids: Sequence[str]) -> Examples:
        from gauntlet.bench.worker.request_bytes import images_of

        asked = {"threat": dataclasses.asdict(threat), "most": most, "cell": dataclasses.asdict(cell), "ids": list(ids)}
        self._frames.send(json.dumps({"wanted": asked}))
        answer = self._arrived.get()
        images = iter(images_of(answer.content, answer.fields["images"]))
        return {sample: [next(images) for _ in range(count)] for sample, count in answer.fields["counts"]}
