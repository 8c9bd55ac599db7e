"""The store: whole files or none, the first writer wins, and what was altered or damaged is told."""

from __future__ import annotations

import dataclasses
import errno
import json
import multiprocessing
import os
import resource
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders import cell_info, intact, samples
from builders import record as record_of
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.measurements import Measurements
from gauntlet.leaderboard.results.record import CellError, Flag, Samples, Stats
from gauntlet.leaderboard.results.store import Store

CELL = cell_info(seed=3)
KEY = "ab" + "0" * 62


def record(key=KEY, *, n=5, seed=0, kept=True, **changes):
    draw = np.random.default_rng(seed)
    images = [draw.random((1, 4, 4), dtype=np.float32) if kept and i % 2 else None for i in range(n)]
    broken, label = np.arange(n) % 2 == 1, draw.integers(0, 10, n)
    whole = samples(
        ~broken,
        id=[f"s{i}-é×" for i in range(n)],
        label=label,
        clean_prediction=label,
        prediction=draw.integers(0, 10, n),
        distance=np.where(broken, draw.random(n) * CELL.eps, np.nan),
        margin=draw.normal(size=n),
        forwards=draw.random(n) * 40,
        backwards=draw.random(n) * 40,
        steps=np.where(broken, 7, -1),
        wrong_share=draw.random(n),
        wrong_share_scored=(draw.random(n) + broken) / 2,
        adversarial=images,
    )
    fields = {
        "stats": Stats(1.25, 300.5, candidates_rejected=2, disagreements=1),
        "flags": (Flag("non-differentiable-defense", "warn", "a sentence"), Flag("x", "block", "another")),
        "provenance": {"time": "2026-11-21T10:00:00+00:00", "dirty": True, "versions": {"torch": "2"}, "argv": ["a"]},
        "clean_logits": draw.normal(size=(n, 10)),
    }
    return record_of(whole, CELL, key=key, **(fields | changes))


def assert_same_samples(one, other):
    for field in dataclasses.fields(Samples):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if field.name != "adversarial":
            np.testing.assert_array_equal(first, second, strict=field.name != "id")
            continue
        assert [image is None for image in first] == [image is None for image in second]
        for a, b in zip(first, second, strict=True):
            if a is not None:
                np.testing.assert_array_equal(a, b, strict=True)


def rewrite(store, key, change):
    """Alter a stored table in place, its metadata kept."""
    path = store.path(key)
    table = pq.read_table(path)
    path.unlink()
    pq.write_table(change(table), path)


def replaced(table, name, values):
    place = table.column_names.index(name)
    return table.set_column(place, name, pa.array(values, table.schema.field(name).type))


# --- round trip -------------------------------------------------------------------------------------------------------


def test_everything_that_was_written_is_read_back(tmp_path):
    store, written = Store(tmp_path), record()
    assert store.write(written)
    read = store.read(KEY, adversarial=True)
    assert_same_samples(read.samples, written.samples)
    assert (read.key, read.cell, read.stats, read.flags) == (KEY, written.cell, written.stats, written.flags)
    assert read.provenance == written.provenance
    np.testing.assert_array_equal(read.clean_logits, written.clean_logits, strict=True)
    assert intact(store, KEY)
    assert store.size(KEY) == store.path(KEY).stat().st_size > 0


def test_examples_are_read_only_on_demand(tmp_path):
    store = Store(tmp_path)
    store.write(record())
    assert list(store.read(KEY).samples.adversarial) == [None] * 5


@pytest.mark.parametrize("changes", [{"clean_logits": None}, {"kept": False}, {"flags": ()}, {"n": 1}])
def test_what_may_be_absent_comes_back_absent(tmp_path, changes):
    store, written = Store(tmp_path), record(**changes)
    store.write(written)
    read = store.read(KEY, adversarial=True)
    assert_same_samples(read.samples, written.samples)
    assert (read.clean_logits is None) == (written.clean_logits is None)
    assert read.flags == written.flags
    assert intact(store, KEY)


def test_double_precision_examples_keep_every_bit(tmp_path):
    store, written = Store(tmp_path), record()
    images = [None if image is None else image.astype(np.float64) / 3 for image in written.samples.adversarial]
    written = dataclasses.replace(written, samples=dataclasses.replace(written.samples, adversarial=images))
    store.write(written)
    assert_same_samples(store.read(KEY, adversarial=True).samples, written.samples)


def test_the_failure_of_a_cell_is_kept_replaced_and_cleared(tmp_path):
    store = Store(tmp_path)
    assert store.read_error("one") is None
    store.write_error("one", CellError(CELL, "RuntimeError", "first × é"))
    store.write_error("one", CellError(CELL, "ValueError", "second", "traceback", {"device": "cpu"}))
    assert store.read_error("one") == CellError(CELL, "ValueError", "second", "traceback", {"device": "cpu"})
    store.clear_error("one")
    store.clear_error("one")
    assert store.read_error("one") is None


# --- one writer -------------------------------------------------------------------------------------------------------


def test_the_first_writer_of_a_key_wins(tmp_path):
    store = Store(tmp_path)
    assert store.write(record(seed=1))
    assert not store.write(record(seed=2))
    assert_same_samples(store.read(KEY, adversarial=True).samples, record(seed=1).samples)
    assert [path.name for path in store.path(KEY).parent.iterdir()] == [store.path(KEY).name]


def _write_many(root, seed, keys, barrier, won):
    store = Store(root)
    barrier.wait()
    won.put((seed, [key for key in keys if store.write(record(key, seed=seed))]))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_of_two_processes_that_write_the_same_keys_each_key_has_one_winner(tmp_path):
    keys = [f"{i:02x}{i:062x}" for i in range(60)]
    context = multiprocessing.get_context("fork")
    barrier, won = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_write_many, args=(tmp_path, seed, keys, barrier, won)) for seed in (1, 2)]
    for worker in workers:
        worker.start()
    winners = dict(won.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert sorted(winners[1] + winners[2]) == keys
    store = Store(tmp_path)
    for seed, mine in winners.items():
        for key in mine:
            assert intact(store, key)
            assert_same_samples(store.read(key, adversarial=True).samples, record(key, seed=seed).samples)
    assert len(list((tmp_path / "store").rglob("*"))) == 2 * len(keys)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_what_a_killed_writer_left_behind_is_never_read(tmp_path, monkeypatch):
    store = Store(tmp_path)
    # A kill between writing and linking: nothing after it runs, the clearing up included.
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(os, "link", lambda *_: os.kill(os.getpid(), 9))
        store.write(record())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    assert len(list(store.path(KEY).parent.iterdir())) == 1
    assert not store.has(KEY)
    with pytest.raises(StoreError, match="missing"):
        store.read(KEY)
    assert store.write(record())
    assert intact(store, KEY)


# --- damage -----------------------------------------------------------------------------------------------------------


def test_the_stages_of_a_cascade_come_back_and_an_altered_one_is_noticed(tmp_path):
    store, written = Store(tmp_path), record()
    written = dataclasses.replace(written, samples=dataclasses.replace(written.samples, stage=("a", "", "b", "", "")))
    store.write(written)
    assert tuple(store.read(KEY).samples.stage) == ("a", "", "b", "", "")
    assert intact(store, KEY)
    rewrite(store, KEY, _first_changed("stage", lambda stage: stage + "x"))
    assert not intact(store, KEY)


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "no metadata", "a column lacks", "another schema"])
def test_a_damaged_file_is_named_with_the_way_out(tmp_path, damage):
    store = Store(tmp_path)
    store.write(record())
    path = store.path(KEY)
    raw = path.read_bytes()
    if damage == "another schema":
        fields = json.loads(pq.read_schema(path).metadata[b"gauntlet"]) | {"schema": 999}
        rewrite(store, KEY, lambda table: table.replace_schema_metadata({b"gauntlet": json.dumps(fields).encode()}))
    elif damage == "no metadata":
        rewrite(store, KEY, lambda table: table.replace_schema_metadata(None))
    elif damage == "a column lacks":
        rewrite(store, KEY, lambda table: table.drop_columns(["robust"]))
    else:
        path.unlink()
        path.write_bytes({"empty": b"", "cut": raw[: len(raw) // 2], "garbage": bytes(1000)}[damage])
    for read in (store.read, partial(intact, store)):
        with pytest.raises(StoreError) as error:
            read(KEY)
        assert str(path) in str(error.value)
        assert ("" if damage == "another schema" else "delete it and ") + "run the same command again" in str(
            error.value
        )


def test_every_flipped_byte_is_an_error_or_is_not_intact_or_changes_nothing(tmp_path):
    store, written = Store(tmp_path), record(n=3)
    store.write(written)
    raw = store.path(KEY).read_bytes()
    kinds = set()
    for place in range(0, len(raw), 97):
        changed = bytearray(raw)
        changed[place] ^= 0x10
        store.path(KEY).write_bytes(changed)
        try:
            whole = intact(store, KEY)
        except StoreError:
            kinds.add("error")
            continue
        kinds.add(whole)
        if whole:
            assert_same_samples(store.read(KEY, adversarial=True).samples, written.samples)
    assert "error" in kinds


def _pixel(table):
    images = table["adversarial"].to_pylist()
    pixels = np.frombuffer(images[1], np.float32).copy()
    pixels[0] = np.nextafter(pixels[0], np.float32(1))
    images[1] = pixels.tobytes()
    return replaced(table, "adversarial", images)


def _first_changed(name, change):
    def apply(table):
        values = table[name].to_pylist()
        values[0] = change(values[0])
        return replaced(table, name, values)

    return apply


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_pixel, id="pixel"),
        pytest.param(_first_changed("label", lambda label: label + 1), id="label"),
        pytest.param(_first_changed("robust", lambda robust: not robust), id="verdict"),
        pytest.param(_first_changed("id", lambda name: name + "x"), id="id"),
        pytest.param(_first_changed("forwards", lambda count: count + 1), id="passes"),
    ],
)
def test_one_altered_value_is_noticed(tmp_path, change):
    store = Store(tmp_path)
    store.write(record())
    rewrite(store, KEY, lambda table: table)
    assert intact(store, KEY)
    rewrite(store, KEY, change)
    assert not intact(store, KEY)


def test_a_block_under_another_key_is_noticed(tmp_path):
    store, other = Store(tmp_path), "ab" + "1" * 62
    store.write(record())
    store.path(KEY).rename(store.path(other))
    assert not intact(store, other)


def test_a_damaged_error_file_is_named(tmp_path):
    store = Store(tmp_path)
    store.write_error("one", CellError(CELL, "RuntimeError", "first"))
    path = tmp_path / "errors" / "one.json"
    path.write_text(path.read_text()[:20])
    with pytest.raises(StoreError, match=r"one\.json is damaged"):
        store.read_error("one")


# --- no room ----------------------------------------------------------------------------------------------------------


def _assert_nothing_but_the_first(store):
    assert intact(store, KEY)
    assert not store.has("cd" + KEY[2:])
    assert not list(store.root.rglob("*.tmp"))


def test_a_full_disk_at_the_last_moment_keeps_what_is_there(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.write(record())

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(StoreError, match="No space left") as error:
        store.write(record("cd" + KEY[2:]))
    assert "kept" in str(error.value)
    assert "cd" + KEY[2:] in str(error.value)
    monkeypatch.undo()
    _assert_nothing_but_the_first(store)
    assert store.write(record("cd" + KEY[2:]))


def test_a_file_that_cannot_grow_keeps_what_is_there(tmp_path):
    store = Store(tmp_path)
    store.write(record())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(StoreError, match="cannot write"):
            store.write(record("cd" + KEY[2:], n=400))
        store.write_error("small", CellError(CELL, "E", "m"))
        with pytest.raises(StoreError, match="cannot write"):
            store.write_error("small", CellError(CELL, "E", "m" * 5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    _assert_nothing_but_the_first(store)
    assert store.read_error("small").message == "m"


def test_a_folder_that_cannot_be_made_is_an_error_with_its_name(tmp_path):
    (tmp_path / "store").write_text("a file where the folder would be")
    with pytest.raises(StoreError, match=str(tmp_path)):
        Store(tmp_path).write(record())


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "null", "3"])
def test_a_damaged_measurement_is_named_with_its_remedy(tmp_path, content):
    path = tmp_path / "measured" / "pipeline" / f"{KEY}.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(StoreError, match=r"is damaged .*delete it and run the same command again"):
        Measurements(tmp_path).of_cell("pipeline")
