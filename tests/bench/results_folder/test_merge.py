"""`gauntlet merge`: folders joined without models, and the tables of what was joined."""

from __future__ import annotations

import json
import shutil

import pytest
from conftest import run_here

from gauntlet.bench.results_folder.merge import merge_folders
from gauntlet.bench.run.run_folder import load_run
from gauntlet.bench.run.tables import write_leaderboard
from gauntlet.bench.speed.synthetic_store import StoreSize, make_store
from gauntlet.leaderboard.results.block_file import to_bytes
from gauntlet.leaderboard.results.record import CellError
from gauntlet.leaderboard.results.store import Store
from random_kills import events, kill_often
from run_tables import same_blocks

TABLES = ("leaderboard.csv", "cells.csv", "classes.csv")


def tables(folder):
    run = load_run(folder)
    write_leaderboard(run, run.results())
    return [(folder / name).read_bytes() for name in TABLES]


@pytest.fixture
def whole(tmp_path):
    """A folder with two models under three attacks, three blocks a cell."""
    make_store(tmp_path / "whole", StoreSize(2, 3, 250))
    return tmp_path / "whole"


def shard(whole, folder, number, count=2):
    """A copy with every `count`th block of the folder."""
    shutil.copytree(whole, folder)
    for place, key in enumerate(Store(whole).stored_keys()):
        if place % count != number:
            Store(folder).path(key).unlink()
    return folder


def merged(out, *folders):
    return list(merge_folders(out, folders))


def test_two_halves_give_the_tables_of_the_whole(whole, tmp_path):
    halves = [shard(whole, tmp_path / f"half{number}", number) for number in (0, 1)]
    first, second = merged(tmp_path / "out", *halves)
    assert (first.blocks, second.blocks, first.same, second.same) == (9, 9, 0, 0)
    assert first.line == f"{halves[0]}: 9 blocks and 1 run added, 0 blocks were there"
    assert tables(tmp_path / "out") == tables(whole)
    again = merged(tmp_path / "out", *halves)
    assert [(one.blocks, one.runs, one.same) for one in again] == [(0, 0, 9), (0, 0, 9)]
    assert tables(tmp_path / "out") == tables(whole)


def test_of_blocks_that_differ_the_first_is_kept_and_the_difference_is_said(whole, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(whole, other)
    key = Store(whole).stored_keys()[0]
    record = Store(other).read(key, adversarial=True)
    at = int(record.samples.robust.nonzero()[0][0])
    record.samples.robust[at], record.samples.wrong_share_scored[at], record.samples.distance[at] = False, 1.0, 0.02
    Store(other).path(key).write_bytes(to_bytes(record))
    _, second = merged(tmp_path / "out", whole, other)
    assert second.same == 17
    assert "robust differs for 1 of 100 samples: the first is kept" in second.notes[0]
    assert tables(tmp_path / "out") == tables(whole)


def test_a_damaged_block_is_left_out_and_replaces_no_other(whole, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(whole, other)
    key = Store(whole).stored_keys()[3]
    Store(other).path(key).write_bytes(b"damaged")
    first, second = merged(tmp_path / "out", other, whole)
    assert (first.blocks, second.blocks) == (17, 1)
    assert "left out" in first.notes[0]
    assert tables(tmp_path / "out") == tables(whole)


def test_a_damaged_block_of_the_target_is_replaced(whole, tmp_path):
    merged(tmp_path / "out", whole)
    key = Store(whole).stored_keys()[3]
    Store(tmp_path / "out").path(key).write_bytes(b"damaged")
    (again,) = merged(tmp_path / "out", whole)
    assert "was damaged" in again.notes[0]
    assert tables(tmp_path / "out") == tables(whole)


def test_a_failure_is_kept_unless_another_folder_finished_the_cell(whole, tmp_path):
    half = shard(whole, tmp_path / "half", 0)
    cell = load_run(half).plan.cells[0]
    Store(half).write_error(cell.name, CellError(cell.info, "RuntimeError", "out of memory"))
    merged(tmp_path / "out", half)
    assert load_run(tmp_path / "out").results()[0].error.message == "out of memory"
    merged(tmp_path / "out", whole)
    assert load_run(tmp_path / "out").results()[0].error is None


def test_runs_of_both_folders_are_there_and_the_newest_is_the_latest(whole, tmp_path):
    make_store(tmp_path / "more", StoreSize(3, 2, 120))
    merged(tmp_path / "out", whole, tmp_path / "more")
    names = {path.name for folder in ("whole", "more") for path in (tmp_path / folder / "runs").iterdir()}
    assert {path.name for path in (tmp_path / "out" / "runs").iterdir()} == names
    assert load_run(tmp_path / "out").folder.name in names


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["absent"], "absent is no folder"),
        (["empty"], "empty holds no results"),
        (["whole", "whole"], "a folder is given twice"),
        (["out"], "is the folder to merge into"),
    ],
)
def test_folders_without_results_are_refused_and_nothing_is_written(whole, tmp_path, folders, message, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "out").mkdir()
    assert run_here("merge", tmp_path / "out", *(tmp_path / name for name in folders)) == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_a_damaged_run_of_a_folder_is_an_error_that_names_the_file(whole, tmp_path, capsys):
    cells = next((whole / "runs").glob("*/cells/*.json"))
    cells.write_text("{")
    assert run_here("merge", tmp_path / "out", whole) == 1
    assert str(cells) in capsys.readouterr().err


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_merge_that_is_killed_at_random_moments_is_taken_up_by_the_same_command(tmp_path, kills):
    whole, out = tmp_path / "whole", tmp_path / "out"
    make_store(whole, StoreSize(2, 3, 250, shape=(3, 8, 8)))
    halves = [shard(whole, tmp_path / f"half{number}", number) for number in (0, 1)]
    merge = ("merge", out, *halves)
    count = events(out, *merge)
    shutil.rmtree(out)

    def check():
        if out.exists():
            same_blocks(out, whole, some=True)
            assert len(list(out.glob("store/*/*.parquet"))) == len(Store(out).stored_keys())

    kill_often(kills, 11, out, count, check, lambda: None, *merge)
    notes = [note for one in merged(out, *halves) for note in one.notes]
    assert not notes
    same_blocks(whole, out)
    assert tables(out) == tables(whole)


def test_published_figures_and_the_seconds_of_runs_come_along_once(whole, tmp_path):
    run = load_run(whole)
    (run.folder / "published").mkdir()
    figure = {"model": "net", "data": "made-up", "clean": 0.9}
    (run.folder / "published" / "x.json").write_text(json.dumps({"model": "net", "published": [figure]}))
    for _ in range(2):
        merged(tmp_path / "out", whole)
    assert len(load_run(tmp_path / "out").published()) == 1
    assert [one.spent for one in load_run(tmp_path / "out").results()] == [one.spent for one in run.results()]
