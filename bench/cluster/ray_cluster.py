"""Workers on a Ray cluster: connecting to it, its resources, and the actors that start workers."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.cluster.worker_pool import WorkerPool
from gauntlet.bench.config.cluster_options import ClusterOptions
from gauntlet.bench.config.schema import ConfigError
from gauntlet.bench.executors.example_index import Examples, FindExamples
from gauntlet.bench.worker.process_worker import ProcessWorker
from gauntlet.bench.worker.seam import WorkerSettings
from gauntlet.leaderboard.results.record import CellInfo

_PATIENCE: Final = 10.0
"""Seconds for a cluster to answer."""
_CONCURRENT: Final = 4
"""Calls of an actor that may run at once: one that waits for bytes, and others."""


@contextmanager
def ray_workers(options: ClusterOptions, settings: WorkerSettings, examples: FindExamples) -> Iterator[WorkerPool]:
    """Workers on the cluster that `options` name: one for each GPU, or part of a GPU, else one for each CPU.

    `examples`: finds the stored examples that replays try. Raises ConfigError where Ray is missing, the cluster is not found, or
    has nothing to run a worker on.
    """
    with _connected(options):
        pool = _pool(options, settings, examples)
        try:
            yield pool
        finally:
            pool.close()


@contextmanager
def _connected(options: ClusterOptions) -> Iterator[None]:
    # Unless the user says otherwise, nothing is reported to the makers of Ray.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f"--ray needs the package ray ({error}): pip install 'robust-gauntlet[ray]'") from None

    if ray.is_initialized():
        yield
        return
    try:
        _reach(options.address or os.environ.get("RAY_ADDRESS", ""))
        ray.init(address=options.address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        named = f"the Ray cluster {options.address!r}" if options.address else "a Ray cluster"
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"--ray: {named} cannot be reached ({reason}): start one with `ray start --head`, give its address, such as "
            "--ray=10.0.0.1:6379, or --ray=local for workers on this machine alone"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError where nobody answers at HOST:PORT, which Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


def workers_that_fit(nodes: Iterable[Mapping[str, float]], kind: str, each: float) -> int:
    """How many workers that take `each`, in (0, 1], of one GPU or CPU (`kind`) fit on nodes with these resources.

    A worker has a part of one GPU, not parts of two.
    """
    return sum(int(node.get(kind, 0)) for node in nodes) * int(1 / each + 1e-6)


def _pool(options: ClusterOptions, settings: WorkerSettings, examples: FindExamples) -> WorkerPool:
    import ray

    from gauntlet.bench.cluster.ray_child import RayChild
    from gauntlet.bench.cluster.relay import Relay

    def nodes() -> list[dict[str, float]]:
        found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        return [node["Resources"] for node in found if node["Alive"]]

    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    on_gpus = settings.device != "cpu" and (there.get("GPU", 0) > 0 or settings.device != "auto")
    kind, each = ("GPU", options.gpus_per_task) if on_gpus else ("CPU", 1.0)
    if not on_gpus and options.gpus_given:
        raise ConfigError(
            f"--gpus-per-task={options.gpus_per_task:g} needs a cluster with GPUs and --device=auto or cuda: leave it out"
        )
    if workers_that_fit(nodes(), kind, each) < 1:
        raise ConfigError(
            f"--ray: the cluster has {there.get(kind, 0):g} {kind}, and a worker needs {each:g}: add machines, or choose "
            "another --device or --gpus-per-task"
        )
    wanted = {"num_gpus": each, "num_cpus": 0} if on_gpus else {"num_cpus": 1}
    folder = str(Path.cwd())
    actor: Any = ray.remote(Relay)

    def start() -> Any:
        return actor.options(**wanted, max_concurrency=_CONCURRENT, max_restarts=0).remote(folder)

    def capacity() -> int:
        return workers_that_fit(nodes(), kind, each)

    one_at_a_time = threading.Lock()

    def find(threat: ThreatModel, most: int, cell: CellInfo, ids: Sequence[str]) -> Examples:
        with one_at_a_time:
            return examples(threat, most, cell, ids)

    return WorkerPool(lambda: ProcessWorker(settings, find, lambda: RayChild(start)), capacity)
