"""A cell that two suites have: run side by side, as on a cluster, its blocks are attacked once and both cells are whole."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from gauntlet.bench.config.schema import load_config
from gauntlet.bench.executors.example_index import ExampleIndex
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.run.engine import Engine
from gauntlet.bench.worker.seam import WorkerSettings
from gauntlet.bench.worker.work import LocalWorker
from gauntlet.leaderboard.results.store import Store

ASKED = {"data": "data.npz", "threat": ["Linf:0.1"]}


class Watched:
    """A worker that gives a second attack the chance to begin before the first one ends."""

    def __init__(self, worker):
        self.worker, self.device, self.allow = worker, worker.device, worker.allow
        self.attacks, self.lock, self.second = 0, threading.Lock(), threading.Event()

    def work(self, request):
        if request.run:
            with self.lock:
                self.attacks += 1
                if self.attacks == 2:
                    self.second.set()
            self.second.wait(0.5)
        with self.lock:
            messages = list(self.worker.work(request))
        yield from messages


@pytest.mark.parametrize(
    "asked",
    [
        {"model": ["model.py:build"], "attacks": ["fgsm", "quick"]},
        # Other names, the same weights and source.
        {"model": ["model.py:build", "twin.py:build"], "attacks": ["fgsm"]},
    ],
)
@pytest.mark.parametrize("held", [pytest.param(False, marks=pytest.mark.slow), True])
def test_twins_run_one_after_another(project, asked, held):
    Path("twin.py").write_bytes(Path("model.py").read_bytes())
    config = load_config({**ASKED, **asked}, folder=Path.cwd())
    local = LocalWorker.of(WorkerSettings.of(config), ExampleIndex(Store(config.out)).load)
    given = {"held": Store.holding(config.out).held} if held else {}
    worker = Watched(local)
    engine = Engine(make_plan(config), config, worker=worker, command="gauntlet run", **given)
    twins = [cell for cell in engine.run.plan.cells if cell.info.attack == "fgsm"]
    assert len(twins) == 2
    ready = [engine.prepare(cell) for cell in twins]
    assert len({block.key for one in ready for block in one.prepared.blocks}) == len(ready[0].prepared.blocks)
    results = []
    threads = [threading.Thread(target=lambda one=one: results.append(engine.execute(one))) for one in ready]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.error for result in results] == [None, None]
    assert worker.attacks == 1
    assert not list(config.out.glob("damaged/*"))
