"""Summaries on disk: used without reading blocks, and never believed once a file of theirs is another."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest

from gauntlet.bench.planning.plan import Plan
from gauntlet.bench.results_folder import fill_summaries
from gauntlet.bench.run.run_folder import load_run
from gauntlet.bench.run.tables import details_of, write_leaderboard
from gauntlet.bench.speed.synthetic_store import ATTACKS, StoreSize, make_store
from gauntlet.leaderboard.results import summary_file
from gauntlet.leaderboard.results.block_file import to_bytes
from gauntlet.leaderboard.results.errors import DamagedBlockError
from gauntlet.leaderboard.results.store import Store, Timing
from gauntlet.leaderboard.rows.build_rows import build_rows

TABLES = ("leaderboard.csv", "cells.csv", "classes.csv", "leaderboard.md")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of 2 models under 4 attacks on 250 samples, computed a minute ago, and a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    summary_file._secret.cache_clear()
    made = make_store(tmp_path / "out", StoreSize(2, 4, 250))
    for path in (tmp_path / "out" / "store").rglob("*.parquet"):
        set_time(path, -60)
    yield made
    summary_file._secret.cache_clear()


def set_time(path, seconds):
    """Set the time of change of a file relative to now."""
    then = path.stat().st_mtime_ns + seconds * 10**9
    os.utime(path, ns=(then, then))


def no_block_is_read(monkeypatch):
    def refuse(*arguments, **settings):
        raise AssertionError("a block was read")

    monkeypatch.setattr(Store, "read", refuse)


def tables(run, cells):
    write_leaderboard(run, cells)
    return [(run.root / name).read_bytes() for name in TABLES]


def first_block(run):
    """The path and the key of the first block of the first cell."""
    key = run.keys(run.plan.cells[0])[0][0]
    return run.store.path(key), key


def test_tables_from_summaries_are_those_from_blocks_and_read_none(run, monkeypatch):
    expected = tables(run, run.results())
    assert tables(run, run.summaries()) == expected
    no_block_is_read(monkeypatch)
    assert tables(run, load_run(run.root).summaries()) == expected


def test_summaries_may_be_deleted_at_any_time(run):
    expected = tables(run, run.summaries())
    for name in ("summaries", "summaries/samples"):
        shutil.rmtree(run.root / name, ignore_errors=True)
        assert tables(run, run.summaries()) == expected


def test_what_is_asked_anew_reads_every_block(run, monkeypatch):
    run.summaries()
    no_block_is_read(monkeypatch)
    with pytest.raises(AssertionError, match="a block was read"):
        run.summaries(anew=True)


def test_a_block_that_was_damaged_since_is_not_covered_by_its_summary(run):
    run.summaries()
    path, _ = first_block(run)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedBlockError, match=path.name):
        run.summaries()


def test_a_block_that_was_replaced_since_changes_the_row(run):
    before = run.summaries()[0].robust_accuracy
    path, key = first_block(run)
    record = run.store.read(key)
    samples = record.samples
    samples.robust[:], samples.wrong_share_scored[:], samples.distance[:] = False, 1.0, 0.01
    path.write_bytes(to_bytes(record))
    assert run.summaries()[0].robust_accuracy.successes < before.successes
    assert [r.robust for r in build_rows(run.summaries())] == [r.robust for r in build_rows(run.results())]


def test_a_block_that_is_gone_leaves_its_cell_unfinished(run):
    run.summaries()
    first_block(run)[0].unlink()
    assert run.summaries()[0].status == "unfinished"


def test_a_later_run_of_a_block_changes_its_seconds_and_whether_it_was_stored(run):
    assert run.summaries()[0].cached
    run.store.note_timing(first_block(run)[1], Timing(99.0, 1.0, "2030-01-01T00:00:00+00:00"))
    for _ in range(2):
        again = run.summaries()[0]
        assert (again.costs.seconds, again.cached) == (99.0 + 2 * 12.5, False)


def test_a_summary_of_somebody_else_is_made_again(run, monkeypatch, tmp_path):
    rows = build_rows(run.summaries())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    summary_file._secret.cache_clear()
    reads = []
    read = Store.read
    monkeypatch.setattr(Store, "read", lambda store, key, **how: reads.append(key) or read(store, key, **how))
    assert [row.robust for row in build_rows(run.summaries())] == [row.robust for row in rows]
    assert len(reads) == 2 * 4 * 3


@pytest.mark.parametrize("part", ["summary", "samples"])
def test_a_summary_that_was_edited_is_made_again(run, part):
    expected = tables(run, run.summaries())
    folder = run.root / "summaries"
    for path in [path for path in (folder / "samples" if part == "samples" else folder).glob("*") if path.is_file()]:
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    assert tables(run, run.summaries()) == expected


def test_nothing_is_kept_of_files_that_might_change_again_unnoticed(run):
    for path in (run.root / "store").rglob("*.parquet"):
        os.utime(path)
    run.summaries()
    assert not (run.root / "summaries").exists()


def test_several_processes_make_the_summaries_that_one_makes(run, monkeypatch):
    expected = tables(run, run.results())
    monkeypatch.setattr(fill_summaries, "WORTH", 1)
    monkeypatch.setattr(fill_summaries, "_processors", lambda: 2)
    fill_summaries.fill_summaries([run])
    no_block_is_read(monkeypatch)
    assert tables(run, run.summaries()) == expected


def test_a_damaged_block_stops_all_processes_with_its_name(run, monkeypatch):
    first_block(run)[0].write_bytes(b"damaged")
    monkeypatch.setattr(fill_summaries, "WORTH", 1)
    monkeypatch.setattr(fill_summaries, "_processors", lambda: 2)
    with pytest.raises(DamagedBlockError, match=first_block(run)[0].name):
        fill_summaries.fill_summaries([run])


def details(run):
    """What the page of each model's row has beside summaries, in a form that is compared."""
    found = {row.model: details_of(run)(row.key) for row in build_rows(run.summaries())}
    curves = {model: one.curve for model, one in found.items()}
    return {
        model: (one.confusion, curves[model].attacks, curves[model].eps.tolist(), curves[model].standing.tolist())
        for model, one in found.items()
    }


@pytest.fixture
def with_curves(run, monkeypatch):
    """The same run, whose last attack is a minimum-norm attack."""
    cells = tuple(
        replace(cell, info=replace(cell.info, minimum_norm=cell.info.attack == ATTACKS[1].label))
        for cell in run.plan.cells
    )
    return replace(run, plan=Plan(cells))


def test_details_of_rows_are_read_without_their_blocks_the_second_time(with_curves, monkeypatch):
    expected = details(with_curves)
    no_block_is_read(monkeypatch)
    assert details(with_curves) == expected


def test_details_of_rows_may_be_deleted_and_are_made_again_where_they_were_edited(with_curves):
    expected, folder = details(with_curves), with_curves.root / "summaries" / "rows"
    files = list(folder.iterdir())
    assert len(files) == 2
    for path in files:
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert details(with_curves) == expected
    shutil.rmtree(folder)
    assert details(with_curves) == expected


def test_details_of_a_row_follow_a_block_that_was_replaced(with_curves):
    before = details(with_curves)
    path, key = first_block(with_curves)
    record = with_curves.store.read(key)
    samples = record.samples
    samples.robust[:], samples.wrong_share_scored[:], samples.distance[:] = False, 1.0, 0.001
    samples.prediction[:] = (samples.label + 3) % 10
    path.write_bytes(to_bytes(record))
    set_time(path, -60)
    after, changed = details(with_curves), with_curves.plan.cells[0].info.model
    assert {model for model in before if after[model] != before[model]} == {changed}


def test_without_a_place_for_the_secret_tables_are_made_of_the_blocks(run, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    summary_file._secret.cache_clear()
    assert tables(run, run.summaries()) == tables(run, run.results())
    assert not (run.root / "summaries").exists()
