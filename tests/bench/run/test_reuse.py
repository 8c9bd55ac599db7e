"""`--reuse FOLDER`: blocks of earlier runs are taken where they fit and are whole, and the folder is never written."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gauntlet.bench.config.schema import load_config
from gauntlet.bench.run.reuse import reuse_measurements, reused_store
from gauntlet.leaderboard.results.store import Store

RUN = ("run", "--model=model.py:build", "--data=data.npz", "--threat=Linf:0.15", "--attacks=pgd(steps=5)")


def tree(folder):
    """Every file below a folder, with its content and time."""
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in Path(folder).rglob("*") if file.is_file()}


@pytest.fixture
def cached(project, call):
    assert call(*RUN, "--out=cache").returncode == 0
    return tree("cache")


def test_what_the_cache_holds_is_taken_and_the_cache_is_not_written(cached, call):
    done = call(*RUN, "--out=out", "--reuse=cache")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 cell: 1 answered from the store" in done.stdout
    assert tree("cache") == cached
    (block,) = Path("out/store").rglob("*.parquet")
    assert block.read_bytes() == (Path("cache") / block.relative_to("out")).read_bytes()


def test_the_cache_need_not_be_writable(cached, call):
    subprocess.run(["chmod", "-R", "a-w", "cache"], check=True)
    assert "1 answered from the store" in call(*RUN, "--out=out", "--reuse=cache").stdout
    subprocess.run(["chmod", "-R", "u+w", "cache"], check=True)
    # Permissions do not bind every user who may run tests.
    assert tree("cache") == cached


def test_results_of_another_model_are_not_taken(cached, call):
    means = np.load("means.npy")
    np.save("means.npy", means * 0.5)
    done = call(*RUN, "--out=out", "--reuse=cache")
    assert "1 cell: 0 answered from the store" in done.stdout
    assert tree("cache") == cached


def test_a_damaged_block_is_named_and_computed_again(cached, call):
    (block,) = Path("cache/store").rglob("*.parquet")
    content = bytearray(block.read_bytes())
    content[len(content) // 2] ^= 0xFF
    block.write_bytes(bytes(content))
    before = tree("cache")
    done = call(*RUN, "--out=out", "--reuse=cache")
    assert done.returncode == 0
    assert "warning: not reused: cache/store" in done.stderr
    assert "1 cell: 0 answered from the store" in done.stdout
    assert tree("cache") == before
    assert not Path("cache/damaged").exists()


def test_measurements_that_appear_in_a_held_cache_later_are_not_taken(project):
    Store(Path("cache")).measurements.settle("pipeline", "before", {"flags": [["noise"]]})
    config = load_config({"out": "out", "reuse": "cache"}, folder=Path.cwd())
    reused, store = reused_store(config, print, held=True), Store.holding(Path("out"))
    Store(Path("cache")).measurements.settle("pipeline", "planted", {"flags": []})
    reuse_measurements("pipeline", reused, store, print)
    assert store.measurements.of_cell("pipeline") == {"before": {"flags": [["noise"]]}}


def test_a_cache_that_is_not_there_yet_is_a_note(project, call):
    done = call(*RUN, "--out=out", "--reuse=cache")
    assert done.returncode == 0
    assert "nothing to reuse: cache does not exist" in done.stderr


@pytest.mark.parametrize(("folder", "says"), [("out", "is the results folder itself"), ("data.npz", "is no folder")])
def test_what_is_no_cache_is_wrong_usage(project, call, folder, says):
    done = call(*RUN, "--out=out", f"--reuse={folder}")
    assert done.returncode == 2
    assert says in done.stderr


def test_a_configuration_cannot_name_it(project, call):
    Path("gauntlet.toml").write_text('reuse = "cache"\n', encoding="utf-8")
    done = call("run")
    assert done.returncode == 2
    assert "unknown key 'reuse'" in done.stderr


def test_a_gate_refuses_a_cache_that_git_tracks_and_stops_early_by_one_that_it_does_not(cached, call):
    assert call("baseline", "accept", "cache", "--out=b.json", "--test=sequential").returncode == 0
    done = call(*RUN, "--gate=b.json", "--gate-early", "--out=first")
    assert ", 0 passes" not in done.stderr
    again = call(*RUN, "--gate=b.json", "--gate-early", "--out=second", "--reuse=first")
    assert ", 0 passes" in again.stderr, again.stderr
    shutil.copytree("first", "tracked")
    for command in (["init", "-q", "."], ["add", "-f", "tracked"]):
        subprocess.run(["git", *command], check=True, capture_output=True)
    done = call(*RUN, "--gate=b.json", "--out=third", "--reuse=tracked")
    assert done.returncode == 2
    assert "reuse='tracked' holds results that git tracks" in done.stderr
