"""A worker of a pool with its thread."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Generator

from gauntlet.bench.cluster.shared_request import SharedRequest, Task
from gauntlet.bench.environment.clock import now
from gauntlet.bench.worker.messages import Failure, Message
from gauntlet.bench.worker.process_worker import ProcessWorker
from gauntlet.bench.worker.seam import AnyRequest


class Slot:
    """A worker with its thread, and what it works on."""

    thread: threading.Thread

    def __init__(self, worker: ProcessWorker) -> None:
        self.worker = worker
        self.shared: SharedRequest | None = None
        self.task: Task | None = None
        self.ended = False

    def messages(self, request: AnyRequest) -> Generator[Message]:
        """The worker's messages for a request; an exception that nobody expected is a failure of the request, too."""
        try:
            yield from self.worker.work(request)
        except Exception as error:
            yield Failure(type(error).__name__, str(error), traceback.format_exc(), {"time": now()})
