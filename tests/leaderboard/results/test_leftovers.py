"""Temporary files of killed writers are swept, and never those of a live one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gauntlet.leaderboard.results.atomic_files import replace_text
from gauntlet.leaderboard.results.leftovers import OLD, sweep, temporary_name

WRITER = """
import sys
from pathlib import Path
from gauntlet.leaderboard.results.atomic_files import write_once

def save(file):
    file.write(b"half of it")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()

write_once(Path(sys.argv[1]), save)
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of writing a block, and the temporary file that it has."""
    target = tmp_path / "store" / "ab" / "abcd.parquet"
    process = subprocess.Popen([sys.executable, "-c", WRITER, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"writing\n"
        (file,) = target.parent.iterdir()
        yield process, file
    finally:
        process.kill()
        process.communicate()


def old(path):
    os.utime(path, (time.time() - 2 * OLD,) * 2)


def test_the_file_of_a_live_process_stays_however_old_and_that_of_a_killed_one_goes(writer, tmp_path):
    process, file = writer
    old(file)
    assert sweep(tmp_path) == 0
    assert file.read_bytes() == b"half of it"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert file.exists()
    assert sweep(tmp_path) == 1
    assert not file.exists()


def test_a_live_writer_finishes_what_a_sweep_left_it(writer, tmp_path):
    process, file = writer
    sweep(tmp_path)
    process.communicate(b"")
    assert process.returncode == 0
    assert [path.name for path in file.parent.iterdir()] == ["abcd.parquet"]


@pytest.mark.parametrize("name", [".a.json.{}.tmp".format("0" * 32), ".a.json.00000000-1-{}.tmp".format("0" * 32)])
def test_files_of_earlier_versions_and_of_other_machines_go_after_a_day(tmp_path, name):
    for folder in ("", "store/ab", "runs/x/cells", "measured/y"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).write_text("x")
    assert sweep(tmp_path) == 0
    for folder in ("", "store/ab", "runs/x/cells", "measured/y"):
        old(tmp_path / folder / name)
    assert sweep(tmp_path) == 4


@pytest.mark.parametrize(
    "folder", ["packs", "damaged", "gate/baseline-0", "tables/1", "pictures/x", "summaries/samples"]
)
def test_every_folder_of_a_results_folder_is_swept_and_folders_are_too(tmp_path, folder):
    file = tmp_path / folder / ".a.parquet.{}.tmp".format("0" * 32)
    unpacked = tmp_path / folder / ".artifact-0.{}.tmp".format("0" * 32)
    (unpacked / "store").mkdir(parents=True)
    for path in (file, unpacked / "store" / "b.parquet"):
        path.write_text("x")
    for path in (file, unpacked):
        old(path)
    assert sweep(tmp_path) == 2
    assert not file.exists()
    assert not unpacked.exists()


def test_nothing_else_is_touched(tmp_path):
    names = [
        ".mine.tmp",
        "x.tmp",
        ".a.json.tmp",
        ".a.json.{}.tmp.txt".format("0" * 32),
        "a.json",
        ".a.{}.tmp".format("g" * 32),
    ]
    mine = tmp_path / "mine" / ".a.json.{}.tmp".format("0" * 32)
    for path in (*(tmp_path / name for name in names), *(tmp_path / "store" / name for name in names), mine):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        old(path)
    assert sweep(tmp_path) == 0
    assert mine.exists()


def test_a_name_is_not_taken_twice_and_not_longer_than_file_systems_allow(tmp_path):
    path = tmp_path / f"{'0' * 64}.parquet"
    names = {temporary_name(path).name for _ in range(100)}
    assert len(names) == 100
    assert all(len(name) < 200 and re.search(rf"-{os.getpid()}-", name) for name in names)


def test_a_folder_that_is_not_there_has_nothing_to_sweep(tmp_path):
    assert sweep(tmp_path / "none") == 0


def test_a_write_leaves_no_temporary_file(tmp_path):
    replace_text(tmp_path / "a.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_run_sweeps_its_folder(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    left = Path("out/store/ab/.abcd.parquet.{}.tmp".format("0" * 32))
    left.parent.mkdir(parents=True)
    left.write_text("half of it")
    old(left)
    run = (
        "run",
        "--model=cnn.fast_digits",
        "--data=digits",
        "--samples=5",
        "--threat=Linf:0.1",
        "--attacks=fgsm",
        "--out=out",
    )
    assert call(*run).returncode == 0
    assert not left.exists()
