"""A worker's process may send anything: what cannot be used is a failure of the cell. The process here is made up."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gauntlet.bench.config.schema import load_config
from gauntlet.bench.executors.example_index import ExampleIndex
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.worker.frames import Frames
from gauntlet.bench.worker.process_worker import ProcessWorker
from gauntlet.bench.worker.request import Request
from gauntlet.bench.worker.seam import WorkerSettings
from gauntlet.leaderboard.results.store import Store

HUGE = 10**400
"""An integer that is valid JSON, and no float."""
END = {"end": {"seconds": {}, "stages": {}}}


class Sender:
    """A process that has sent these messages once it has started, and ended."""

    path = None

    def __init__(self, *messages):
        self.connection, self._other = socket.socketpair()
        other = Frames(self._other)
        for message in ({"ready": {"device": "made up"}}, *messages):
            other.send(message)

    def alive(self):
        return True

    def ending(self):
        return "ended"

    def kill(self):
        pass

    def end(self):
        self.connection.close()
        self._other.close()


@pytest.fixture
def answers(tmp_path):
    """A function from a process to the messages of its worker for a request."""
    config = load_config({"model": "cnn.standard_digits", "attacks": "fgsm"}, folder=Path(tmp_path))
    request = Request(make_plan(config).cells[0])
    find = ExampleIndex(Store(tmp_path)).load

    def ask(child):
        worker = ProcessWorker(WorkerSettings.of(config), find, lambda: child)
        worker.watch = [].append
        try:
            return list(worker.work(request))
        finally:
            worker.close()

    return ask


def test_a_share_that_is_no_float_is_a_failure(answers):
    (failure,) = answers(Sender({"share": HUGE}, END))
    assert failure.kind == "WorkerMessageError"
    assert "a message of kind 'share' cannot be read" in failure.message


def test_seconds_that_are_no_float_count_for_nothing(answers):
    assert answers(Sender({"end": {"seconds": {"attack": HUGE}, "stages": {}}})) == []
