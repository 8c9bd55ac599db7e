"""From a configuration to the engine of its plan, with the code under evaluation in this process or in one of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from gauntlet.bench.config.schema import Config, ConfigError
from gauntlet.bench.environment.git_commit import commit
from gauntlet.bench.executors.example_index import ExampleIndex, FindExamples
from gauntlet.bench.planning.plan import Plan
from gauntlet.bench.planning.plan_request import PlanRequest
from gauntlet.bench.run.damaged_blocks import Note, log_note
from gauntlet.bench.run.engine import Engine
from gauntlet.bench.run.reuse import reused_store
from gauntlet.bench.worker.messages import Failure, Planned
from gauntlet.bench.worker.process_worker import ProcessWorker
from gauntlet.bench.worker.seam import Worker, WorkerSettings, answer
from gauntlet.leaderboard.results.store import Store


@contextmanager
def plan_engine(
    config: Config,
    *,
    isolated: bool,
    note: Note = log_note,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[Engine]:
    """The engine of the configuration's plan, which has not begun to write. `meanwhile` is called while another process starts.

    `isolated`: the code under evaluation runs in a process of its own, and of the results folder counts what was there before and
    what this process stores. SIGTERM then ends the run as Ctrl-C does. Raises ConfigError, ValueError or
    LookupError for names and settings, RuntimeError if the other process cannot plan.
    """
    if not isolated:
        from gauntlet.bench.planning.plan import make_plan

        yield Engine(make_plan(config), config, dry=True, note=note)
        return
    # Shards must agree on keys, and judge nothing.
    store = Store.holding(config.out, measured=config.shard is None)
    reused = reused_store(config, note, held=True)
    with _elsewhere(config, ExampleIndex(store).load) as worker, _terminated():
        # Before code of the user's, which may change what git does.
        commit()
        meanwhile()
        worker.allow(config.timeout)
        plan = planned(worker, config)
        worker.allow(config.timeout)
        yield Engine(plan, config, worker=worker, held=store.held, reused=reused, dry=True, note=note)


@contextmanager
def _elsewhere(config: Config, examples: FindExamples) -> Iterator[Worker]:
    """A worker in other processes, which end with the context: one of this machine, or those of a Ray cluster."""
    settings = WorkerSettings.of(config)
    if config.cluster is not None:
        from gauntlet.bench.cluster.ray_cluster import ray_workers

        with ray_workers(config.cluster, settings, examples) as workers:
            yield workers
        return
    worker = ProcessWorker(settings, examples)
    try:
        worker.start()
        yield worker
    finally:
        worker.close()


def planned(worker: Worker, config: Config) -> Plan:
    """The plan, as a worker resolves its names. Raises ConfigError for names and settings, RuntimeError if the worker fails."""
    message = answer(worker.work, PlanRequest.of(config))
    if isinstance(message, Failure):
        raise (ConfigError if message.usage else RuntimeError)(message.message)
    if not isinstance(message, Planned):
        raise RuntimeError(f"the worker answered with {type(message).__name__} instead of a plan")
    return Plan(message.cells, message.skipped)


@contextmanager
def _terminated() -> Iterator[None]:
    """Raise KeyboardInterrupt at SIGTERM, so that what came is stored and the worker ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: Callable[[int, FrameType | None], object] | int | None = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
