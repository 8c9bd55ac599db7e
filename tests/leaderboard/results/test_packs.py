"""Packs: the same blocks in one file, found after loose files, named where damaged, and safe to be killed while being made."""

from __future__ import annotations

import errno
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import run_here

from builders import bits, cell_info, record, samples
from gauntlet.bench.run.run_folder import load_run
from gauntlet.bench.speed.synthetic_store import StoreSize, make_store
from gauntlet.leaderboard.results import atomic_files
from gauntlet.leaderboard.results.atomic_files import write_once
from gauntlet.leaderboard.results.errors import DamagedBlockError, StoreError
from gauntlet.leaderboard.results.packing import pack_blocks, unpack_block
from gauntlet.leaderboard.results.store import Store
from random_kills import events, kill_often
from run_tables import same_blocks

KEYS = [f"{number:02x}" * 32 for number in range(12)]


def block(number, **fields):
    """A block of twenty samples with examples."""
    rng = np.random.default_rng(number)
    robust = bits(20, 9)
    images = [None if stands else rng.random((3, 4, 4), np.float32) for stands in robust]
    return record(samples(robust, first=20 * number, adversarial=images), cell_info(), key=KEYS[number], **fields)


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path)
    for number in range(12):
        made.write(block(number))
    return made


def same(one, other):
    assert (one.key, one.cell, one.stats, one.flags, dict(one.provenance)) == (
        (other.key, other.cell, other.stats, other.flags, dict(other.provenance))
    )
    for name in ("id", "label", "robust", "distance", "margin", "forwards", "wrong_share"):
        np.testing.assert_array_equal(getattr(one.samples, name), getattr(other.samples, name))
    for image, expected in zip(one.samples.adversarial, other.samples.adversarial, strict=True):
        assert (image is None) == (expected is None)
        if image is not None:
            np.testing.assert_array_equal(image, expected)
            assert image.dtype == expected.dtype


def test_packed_blocks_are_the_blocks_and_have_no_files_of_their_own(store):
    before = {key: store.read(key, adversarial=True) for key in KEYS}
    leaves = {key: store.leaf(key) for key in KEYS}
    pack = pack_blocks(store, KEYS)
    assert not list(store.root.glob("store/*/*.parquet"))
    assert pq.ParquetFile(pack).num_row_groups == 12
    for key in KEYS:
        assert store.has(key)
        assert not store.loose(key)
        same(store.read(key, adversarial=True), before[key])
        assert all(image is None for image in store.read(key).samples.adversarial)
        assert store.info(key) == before[key].cell
        assert store.leaf(key) == leaves[key]
        assert store.size(key) > 0
    assert store.stored_keys() == sorted(KEYS)


def test_a_pack_is_named_by_its_blocks_and_one_block_makes_none(store, tmp_path):
    assert pack_blocks(store, KEYS[:1]) is None
    other = Store(tmp_path / "other")
    for number in range(3):
        other.write(block(number))
    assert pack_blocks(other, KEYS[:3]).name == pack_blocks(store, KEYS[:3]).name
    assert pack_blocks(store, KEYS[3:6]).name != pack_blocks(store, KEYS[6:9]).name


def test_a_block_of_a_pack_is_written_by_nobody_again(store):
    pack_blocks(store, KEYS)
    assert not store.write(block(0))
    assert not store.loose(KEYS[0])


def test_a_block_of_its_own_comes_before_the_pack(store):
    pack_blocks(store, KEYS)
    content = Store(store.root / "x")
    content.write(block(0, behaviour="fresh"))
    store.path(KEYS[0]).parent.mkdir(parents=True, exist_ok=True)
    content.path(KEYS[0]).rename(store.path(KEYS[0]))
    assert store.read(KEYS[0]).behaviour == "fresh"


def damage(pack, group):
    """Change a byte of the examples of a row group."""
    place = pq.ParquetFile(pack).metadata.row_group(group)
    names = [place.column(number).path_in_schema for number in range(place.num_columns)]
    column = place.column(names.index("margin"))
    content = bytearray(pack.read_bytes())
    content[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    pack.write_bytes(content)


def test_a_damaged_block_of_a_pack_is_named_and_the_others_are_read(store):
    pack = pack_blocks(store, KEYS)
    damage(pack, 4)
    with pytest.raises(DamagedBlockError, match=f"{pack.name}.*{KEYS[4][:16]}.*altered"):
        store.read(KEYS[4])
    assert [len(store.read(key).samples) for key in KEYS if key != KEYS[4]] == [20] * 11


def test_a_damaged_block_that_is_set_aside_is_computed_again_beside_its_pack(store):
    pack = pack_blocks(store, KEYS)
    damage(pack, 4)
    assert store.set_aside(KEYS[4]).parent.name == "damaged"
    assert not store.has(KEYS[4])
    with pytest.raises(StoreError, match="is missing"):
        store.read(KEYS[4])
    assert store.write(block(4))
    same(store.read(KEYS[4], adversarial=True), block(4))
    assert len(store.stored_keys()) == 12


def test_a_pack_that_is_gone_or_cut_off_names_its_blocks(store):
    pack = pack_blocks(store, KEYS)
    whole = pack.read_bytes()
    pack.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedBlockError, match=pack.name):
        store.read(KEYS[0])
    pack.unlink()
    with pytest.raises(DamagedBlockError, match=pack.name):
        store.read(KEYS[0])
    assert store.stamp(KEYS[0]) == (-1, -1)


def test_a_damaged_index_is_an_error_with_a_remedy(store):
    pack = pack_blocks(store, KEYS)
    pack.with_suffix(".json").write_text("{")
    with pytest.raises(StoreError, match="delete it and its pack"):
        store.has(KEYS[0])


def test_a_cell_with_a_damaged_block_stays_as_it_is(store):
    store.path(KEYS[7]).write_bytes(b"damaged")
    with pytest.raises(DamagedBlockError):
        pack_blocks(store, KEYS)
    assert len(store.loose_keys()) == 12
    assert not (store.root / "packs").exists()


def test_an_unpacked_block_has_a_file_of_its_own_with_the_same_content(store):
    before = store.path(KEYS[2]).read_bytes()
    pack_blocks(store, KEYS)
    assert store.content(KEYS[2]) == before
    unpack_block(store, KEYS[2])
    assert store.path(KEYS[2]).read_bytes() == before


def test_without_hard_links_a_file_is_written_whole_and_an_older_one_stays(tmp_path, monkeypatch):
    def refuse(*names):
        raise OSError(errno.ENOTSUP, "no hard links here")

    monkeypatch.setattr(atomic_files.os, "link", refuse)
    assert write_once(tmp_path / "file", lambda file: file.write(b"first"))
    assert not write_once(tmp_path / "file", lambda file: file.write(b"second"))
    assert (tmp_path / "file").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def tables(folder):
    assert run_here("leaderboard", folder) == 0
    return [(folder / name).read_bytes() for name in ("leaderboard.csv", "cells.csv", "classes.csv")]


def test_the_command_packs_every_finished_cell_and_changes_no_table(tmp_path, capsys):
    folder = tmp_path / "out"
    run = make_store(folder, StoreSize(2, 3, 250, shape=(1, 4, 4)))
    expected = tables(folder)
    unfinished = run.keys(run.plan.cells[0])[0][0]
    kept = run.store.path(unfinished).read_bytes()
    run.store.path(unfinished).unlink()
    assert run_here("pack", folder) == 0
    assert "5 cells packed" in capsys.readouterr().out
    assert len(run.store.loose_keys()) == 2
    run.store.path(unfinished).write_bytes(kept)
    assert run_here("pack", folder) == 0
    assert tables(folder) == expected
    assert not run.store.loose_keys()
    assert len(list((folder / "packs").glob("*.parquet"))) == 6


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_packing_that_is_killed_at_random_moments_loses_and_doubles_nothing(tmp_path, kills):
    whole, folder = tmp_path / "whole", tmp_path / "out"
    make_store(whole, StoreSize(2, 4, 400, shape=(3, 8, 8)))
    expected = tables(whole)

    def anew():
        shutil.copytree(whole, folder)

    anew()
    count = events(folder, "pack", folder)
    shutil.rmtree(folder)
    anew()
    kill_often(kills, 12, folder, count, lambda: same_blocks(whole, folder), anew, "pack", folder)
    assert run_here("pack", folder) == 0
    same_blocks(whole, folder)
    assert not load_run(folder).store.loose_keys()
    assert tables(folder) == expected


def test_gc_removes_what_no_run_asks_for_from_files_and_packs(tmp_path, capsys):
    folder = tmp_path / "out"
    run = make_store(folder, StoreSize(2, 2, 250))
    run_here("pack", folder)
    first, second = run.plan.cells[:2]
    run.store.write(block(0))
    expected = tables(folder)
    run.note_keys(first, run.keys(first)[:1])
    run.note_keys(second, run.keys(second)[:0])
    for path in (folder / "history").glob("*.jsonl"):
        path.unlink()
    assert run_here("gc", folder, "--dry-run") == 0
    assert "6 blocks" in capsys.readouterr().out.splitlines()[-1]
    assert len(run.store.stored_keys()) == 13
    assert run_here("gc", folder) == 0
    assert len(run.store.stored_keys()) == 7
    assert run.store.has(run.keys(first)[0][0])
    assert [len(one) for one in run.summaries()] == [100, 0, 250, 250]
    assert tables(folder) != expected
    assert run_here("gc", folder) == 0
    assert "0 blocks" in capsys.readouterr().out.splitlines()[-1]


def test_gc_keeps_what_earlier_commits_asked_for(tmp_path):
    folder = tmp_path / "out"
    run = make_store(folder, StoreSize(1, 1, 250))
    (cell,) = run.plan.cells
    keys = run.keys(cell)
    if not (folder / "history").exists():
        pytest.skip("outside a git repository no history is kept")
    run.note_keys(cell, keys[:1])
    run_here("gc", folder)
    assert len(run.store.stored_keys()) == 3
    for path in (folder / "history").glob("*.jsonl"):
        assert len(path.read_text().splitlines()) == 2
    run_here("gc", folder, "--history")
    assert run.store.stored_keys() == [keys[0][0]]


def test_a_row_group_that_cannot_be_read_at_all_leaves_the_others_readable(store):
    pack = pack_blocks(store, KEYS)
    place = pq.ParquetFile(pack).metadata.row_group(4).column(0)
    content = bytearray(pack.read_bytes())
    content[place.data_page_offset : place.data_page_offset + 8] = b"\xff" * 8
    pack.write_bytes(content)
    with pytest.raises(DamagedBlockError, match=KEYS[4][:16]):
        store.read(KEYS[4])
    assert [len(store.read(key).samples) for key in KEYS if key != KEYS[4]] == [20] * 11
