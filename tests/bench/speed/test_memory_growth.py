"""What commands keep in memory does not grow with the number of samples: images and examples are no longer there once stored."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys

import pytest

from gauntlet.bench.speed.memory_growth import PROJECT

PROBE = """
import ctypes, gc, json, sys, tracemalloc

from gauntlet.bench.data.samples import lazy_images
from gauntlet.leaderboard.examples import clean_images

# Groups of one block, and of as many clean images: what is kept up to a limit is there from the start.
lazy_images.MEMORY_LIMIT = clean_images._MEMORY_LIMIT = 2**20
from gauntlet.bench.cli.main import main
from gauntlet.leaderboard.results.store import Store


class Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]


libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Counts
seen = []


def watched(method):
    def call(self, *arguments, **options):
        gc.collect(0)
        counts = libc.mallinfo2()
        seen.append((counts.uordblks + counts.hblkhd, tracemalloc.get_traced_memory()[0]))
        return method(self, *arguments, **options)

    return call


calls = sys.argv.pop(1)
setattr(Store, calls, watched(getattr(Store, calls)))
tracemalloc.start()
code = 0
try:
    main()
except SystemExit as end:
    code = end.code or 0
print(json.dumps([code, seen]))
"""
COUNT = 6000
BLOCKS = COUNT // 100


def growth(calls: str, *arguments: str) -> tuple[float, float]:
    """Bytes a sample that a command keeps more and more of: of the C library's heap, and of Python's objects.

    Looked at when a block is stored or read (`calls`, a method of the store); the least of some successive blocks counts,
    since a thread may be encoding others.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROBE, calls, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    code, seen = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    assert len(seen) >= BLOCKS, done.stdout
    seen, some = seen[-BLOCKS:], BLOCKS // 4
    first, last = seen[some : 2 * some], seen[-some:]
    samples = 100 * (BLOCKS - 2 * some)
    heap, objects = ((min(column(last)) - min(column(first))) / samples for column in (_heap, _objects))
    return heap, objects


def _heap(rows: list[list[int]]) -> list[int]:
    return [row[0] for row in rows]


def _objects(rows: list[list[int]]) -> list[int]:
    return [row[1] for row in rows]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the C library does not say what is in use")
def test_no_command_keeps_two_kilobytes_a_sample(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "project.py").write_text(PROJECT.format(count=COUNT, size=32))
    asked = ("--attacks=fgsm", "--threat=Linf:0.02", "--checks=none", "--device=cpu", "--out=out")
    commands = {
        "run": ("add", "run", "--model=project.py:model", "--data=project.py:data", *asked),
        "verify": ("read", "verify", "out", "--trust"),
        "merge": ("read", "merge", "merged", "out"),
        "leaderboard": ("read", "leaderboard", "merged"),
        "pack": ("table", "pack", "merged"),
    }
    grown = {name: growth(*arguments) for name, arguments in commands.items()}
    assert all(max(both) < 2000 for both in grown.values()), grown
