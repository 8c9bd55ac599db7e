"""Processes of a run on Ray killed at random moments: no block is lost, doubled or different."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from run_tables import same_blocks, same_tables

pytest.importorskip("ray")

PLAN = ("run", "--data=data.npz", "--threat=Linf:0.1", "--device=cpu", "--checks=none", "--model=model.py:build")
CELLS = ("--attacks=fgsm,pgd(steps=40),apgd(steps=40),replay", "--defense=none", "--defense=bit_depth(bits=3)")


def below(process):
    """The processes that a process has started, and those that these have."""
    found = []
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            own = [int(text) for text in children.read_text().split()]
        except OSError:
            continue
        found += [*own, *(one for child in own for one in below(child))]
    return found


def workers(cluster):
    """The processes of workers on a cluster, and of the actors that started them."""
    found = []
    for node in cluster.list_all_nodes():
        for process in below(node.all_processes["raylet"][0].process.pid):
            try:
                command = Path(f"/proc/{process}/cmdline").read_bytes()
            except OSError:
                continue
            if b"Relay" in command or b"gauntlet.bench.worker.serve" in command:
                found.append(process)
    return found


@pytest.mark.slow
def test_killed_processes_lose_nothing(project, tiny, call):
    from ray.cluster_utils import Cluster

    tiny.write_data(".", 420)
    clock, killed = random.Random(7), 0
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        while killed < 30:
            running = tiny.start_command(".", *PLAN, *CELLS, "--out=out", f"--ray={cluster.address}")
            for _ in range(3):
                try:
                    running.communicate(timeout=clock.uniform(2, 8))
                    break
                except subprocess.TimeoutExpired:
                    victim = clock.choice([running.pid, *2 * workers(cluster)])
                    with suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                        killed += 1
            running.communicate(timeout=300)
            if running.returncode == 0:
                for path in sorted(Path("out/store").rglob("*.parquet")):
                    if clock.random() < 0.5:
                        path.unlink()
        last = tiny.start_command(".", *PLAN, *CELLS, "--out=out", f"--ray={cluster.address}")
        _, err = last.communicate(timeout=300)
        assert last.returncode == 0, err
    finally:
        cluster.shutdown()
    assert call(*PLAN, *CELLS, "--out=whole").returncode == 0
    same_blocks("whole", "out")
    same_tables("whole", "out", but=("device",))
