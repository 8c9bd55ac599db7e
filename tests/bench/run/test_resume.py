"""Killed, interrupted and racing runs: what was finished stays, and nothing is run twice."""

from __future__ import annotations

import os
import re
import select
import signal

import numpy as np
import pytest

from builders import intact
from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.report.cells_csv import read_cells
from gauntlet.leaderboard.report.leaderboard_csv import read_leaderboard

MODEL = """
import os
import signal
from pathlib import Path

from model import Means

HERE = Path(__file__).parent


class Blocking(Means):
    calls = 0

    def forward(self, x):
        Blocking.calls += 1
        with (HERE / "calls.txt").open("a") as log:
            log.write(f"{os.getpid()} {len(x)}\\n")
        if Blocking.calls == int(os.environ.get("TINY_BLOCK", "0")):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
            with (HERE / "reached").open("w") as reached:
                reached.write(".")
            signal.sigwaitinfo({signal.SIGUSR1})
        return super().forward(x)


def build():
    return Blocking().eval()
"""
ARGUMENTS = (
    *("run", "--model=blocking.py:build", "--data=data.npz", "--threat=Linf:0.1", "--batch-size=20"),
    *("--attacks=fgsm,pgd(steps=5)",),
)
SAMPLES, FILES = 250, 6
"""Three blocks for each of two cells."""
COSTS = ["seconds", "peak_memory_mib"]


def make(tiny, folder):
    tiny.write_project(folder, SAMPLES)
    (folder / "blocking.py").write_text(MODEL)
    os.mkfifo(folder / "reached")
    return folder


def calls(folder, pid=None):
    """(number of calls, number of images) that the model has seen, in all or in one process."""
    lines = [tuple(map(int, line.split())) for line in (folder / "calls.txt").read_text().splitlines()]
    mine = [images for process, images in lines if pid in (None, process)]
    return len(mine), sum(mine)


class Reached:
    """Waits until processes have come to the call at which they block."""

    def __init__(self, folder):
        # Open for writing as well: a pipe whose writers come and go would else be readable, empty or neither by turns.
        self.file = os.open(folder / "reached", os.O_RDWR | os.O_NONBLOCK)

    def wait(self, *processes):
        count = 0
        while count < len(processes):
            ready, _, _ = select.select([self.file], [], [], 1)
            if ready:
                count += len(os.read(self.file, 16))
            else:
                ended = [process for process in processes if process.poll() is not None]
                assert not ended, ended[0].communicate()

    def close(self):
        os.close(self.file)


def files(folder, out="gauntlet-results"):
    return {path.name: path.read_bytes() for path in (folder / out / "store").rglob("*.parquet")}


def figures(folder, out="gauntlet-results"):
    """What a run's files say, but for what depends on the clock."""
    board = read_leaderboard(folder / out / "leaderboard.csv").drop(columns=COSTS)
    cells = read_cells(folder / out / "cells.csv")
    spent = [name for name in cells if name.endswith("_seconds")]
    return board, cells.drop(columns=[*COSTS, *spent, "cached"])


def images_attacked(folder, names):
    """Forward passes of the attack alone in those blocks, by their records."""
    store = load_run(folder / "gauntlet-results").store
    return sum(store.read(name.removesuffix(".parquet")).samples.forwards.sum() for name in names)


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """A project, and its run that nothing disturbed."""
    folder = make(tiny, tmp_path_factory.mktemp("whole"))
    done = tiny.run_command(folder, *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_killed_and_then_interrupted_run_is_finished_by_the_same_command(whole, tiny, tmp_path, call, monkeypatch):
    total_calls, total_images = calls(whole)
    folder = make(tiny, tmp_path)
    reached = Reached(folder)
    # Killed in the middle of the second cell.
    killed = tiny.start_command(folder, *ARGUMENTS, TINY_BLOCK=str(int(0.7 * total_calls)))
    reached.wait(killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    kept = files(folder)
    assert 3 <= len(kept) < FILES
    # Interrupted by Ctrl-C before it finishes another block.
    interrupted = tiny.start_command(folder, *ARGUMENTS, TINY_BLOCK="12")
    reached.wait(interrupted)
    interrupted.send_signal(signal.SIGINT)
    out, err = interrupted.communicate(timeout=120)
    reached.close()
    assert interrupted.returncode == 130
    assert re.search(
        r"interrupted: \d+ outcomes are stored, one for each sample and attack; run the same command again to resume",
        err,
    )
    assert "Traceback" not in out + err
    assert files(folder).items() >= kept.items()
    # A third process finishes, with what is missing alone.
    kept = files(folder)
    before = calls(folder)[1]
    done = tiny.run_command(folder, *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert "(stored)" in done.stderr
    assert len(files(folder)) == FILES
    assert files(folder).items() >= kept.items()
    # The check of the model, its size, 8 images twice in a batch and once alone, and the clean logits of the first block of each
    # cell, are all that is seen again.
    again = 64 + 8 + 3 * 8 + 2 * 112
    assert calls(folder)[1] - before <= total_images - images_attacked(folder, kept) + again
    assert set(files(folder)) == set(files(whole))
    for one, other in zip(figures(folder), figures(whole), strict=True):
        assert one.equals(other)
    last = calls(folder)[1]
    monkeypatch.chdir(folder)
    done = call(*ARGUMENTS)
    assert done.returncode == 0
    assert calls(folder)[1] - last <= again
    assert "2 cells: 2 answered from the store" in done.stdout


def test_two_processes_on_one_store_make_no_doubles_and_the_same_leaderboard(whole, tiny, tmp_path):
    folder = make(tiny, tmp_path)
    reached = Reached(folder)
    # Both have begun the first cell before either has stored a block.
    racers = [tiny.start_command(folder, *ARGUMENTS, TINY_BLOCK="5") for _ in range(2)]
    reached.wait(*racers)
    assert not files(folder)
    for racer in racers:
        racer.send_signal(signal.SIGUSR1)
    shown = []
    for racer in racers:
        out, err = racer.communicate(timeout=120)
        assert racer.returncode == 0, err
        shown.append(out)
    reached.close()
    assert set(files(folder)) == set(files(whole))
    assert not list(folder.rglob("*.tmp"))
    for one, other in zip(figures(folder), figures(whole), strict=True):
        assert one.equals(other)
    rows = [[line.split()[:8] for line in out.splitlines() if line.split()[1:2] == ["blocking.build"]] for out in shown]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 1
    run = load_run(folder / "gauntlet-results")
    assert all(intact(run.store, key) for cell in run.plan.cells for key, _ in run.keys(cell))
    for cell, other in zip(run.results(), load_run(whole / "gauntlet-results").results(), strict=True):
        for block, same in zip(cell.blocks, other.blocks, strict=True):
            np.testing.assert_array_equal(block.samples.robust, same.samples.robust)
