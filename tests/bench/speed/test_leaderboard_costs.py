"""Files and bytes of a large leaderboard from those of a small one."""

from __future__ import annotations

import os

import pytest
from conftest import run_here

from gauntlet.bench.run.run_folder import load_run
from gauntlet.bench.speed.leaderboard_costs import storage
from gauntlet.bench.speed.synthetic_store import StoreSize, make_store


def test_a_larger_leaderboard_costs_what_is_extrapolated(tmp_path):
    found = []
    for name, models, samples in (("small", 2, 500), ("large", 6, 2000)):
        make_store(tmp_path / name, StoreSize(models, 3, samples, shape=(3, 8, 8)))
        assert run_here("pack", tmp_path / name) == 0
        for path in (tmp_path / name / "packs").iterdir():
            # No summary is kept of files that have just changed.
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 60 * 10**9))
        assert run_here("leaderboard", tmp_path / name) == 0
        found.append(storage(load_run(tmp_path / name)))
    small, large = found
    assert (small.cells, small.images) == (6, 500)
    files, size = small.extrapolated(18, 2000)
    kept = ("store", "packs", "runs", "summaries", "history", "clean")
    assert files == pytest.approx(sum(large.files.get(name, 0) for name in kept), rel=0.1)
    assert size == pytest.approx(sum(large.size.get(name, 0) for name in kept), rel=0.1)


def test_a_folder_with_unfinished_cells_is_refused(tmp_path):
    run = make_store(tmp_path / "out", StoreSize(2, 2, 200))
    run.note_keys(run.plan.cells[0], run.keys(run.plan.cells[0])[:1])
    with pytest.raises(ValueError, match="give a folder with one finished run"):
        storage(load_run(tmp_path / "out"))
