"""The blocks of a cell read together are those that are read one by one, and so is every damage that is found."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest

from builders import bits, cell_info, record, reseal, samples
from gauntlet.leaderboard.reading import read_blocks as module
from gauntlet.leaderboard.reading.read_blocks import read_blocks
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.held import Held
from gauntlet.leaderboard.results.packing import pack_blocks
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.results.store import Store

KEYS = [f"{number:02x}" * 32 for number in range(6)]
CERTIFICATE = cell_info(attack_kind="certificate")
CORRUPTION = cell_info(attack_kind="corruption", severities=(1, 3))
TWO_STAGES = {"a": "white-box", "b": "black-box"}


def block(number, cell=None, *, n=7, **columns):
    """A block of some samples, every second one with an example; ids and numbers differ in width from block to block."""
    images = [None if at % 2 else np.full((3, 4, 4), at / 8, np.float32) for at in range(n)]
    columns = {"adversarial": images, "first": 10 ** (number + 1), "label": number} | columns
    chosen = samples(np.arange(n) % 2 == 1, **columns)
    logits = np.random.default_rng(number).random((n, 3)) if number == 0 else None
    flags = (Flag("zero-gradient", "warn", "no gradient"),) if number % 2 else ()
    return record(chosen, cell or cell_info(), key=KEYS[number], flags=flags, clean_logits=logits)


def staged(number):
    stages = ["a" if at % 2 else "" for at in range(7)]
    return block(number, cell_info(techniques=TWO_STAGES), stage=stages, faced=["a b"] * 7)


KINDS = {
    "attack": block,
    "cascade": staged,
    "partly a cascade": lambda number: staged(number) if number % 2 else block(number),
    "certificate": lambda number: block(number, CERTIFICATE, certified=bits(7, number), adversarial=[None] * 7),
    "corruption": lambda number: block(number, CORRUPTION, severities=["1 3", "", "3"] * 2 + [""]),
    "sizes": lambda number: block(number, n=number + 1),
    "randomised": lambda number: block(number, cell_info(randomised=True)),
    "a cell that changes": lambda number: block(number, cell_info(precision=f"form {number // 4}")),
    "a sample in two blocks": lambda number: block(number, first=5),
}


def filled(folder, make=block):
    store = Store(folder)
    for number in range(len(KEYS)):
        store.write(make(number))
    return store


def packed(store, keys):
    pack_blocks(store, keys)
    return store


def same(one, other):
    assert type(one) is type(other)
    for field in dataclasses.fields(one):
        mine, expected = getattr(one, field.name), getattr(other, field.name)
        if field.name == "samples":
            same(mine, expected)
        elif isinstance(expected, np.ndarray):
            np.testing.assert_array_equal(mine, expected)
            assert mine.dtype.kind == expected.dtype.kind
        else:
            assert mine == expected, field.name


PLACES = {
    "files": lambda store: store,
    "a pack": lambda store: packed(store, KEYS),
    "files and a pack": lambda store: packed(store, KEYS[1:4]),
    "two packs": lambda store: packed(packed(store, KEYS[3:]), KEYS[:3]),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_read_together_are_those_read_one_by_one(tmp_path, kind, place):
    store = PLACES[place](filled(tmp_path, KINDS[kind]))
    for keys in (KEYS, KEYS[::-1], KEYS[2:5], KEYS[:1], []):
        together = read_blocks(store, keys)
        assert len(together) == len(keys)
        for one, key in zip(together, keys, strict=True):
            same(one, store.read(key))
            assert all(image is None for image in one.samples.adversarial)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", sorted({*KINDS} - {"a sample in two blocks"}))
def test_none_of_them_is_read_alone(tmp_path, monkeypatch, kind, place):
    store = PLACES[place](filled(tmp_path, KINDS[kind]))
    read = Store.read
    monkeypatch.setattr(Store, "read", lambda store, key, *, columns: read(store, key, columns=columns))
    assert [one.key for one in read_blocks(store, KEYS)] == KEYS


def test_of_large_files_only_the_columns_are_read(tmp_path, monkeypatch):
    store = filled(tmp_path)
    monkeypatch.setattr(module, "_SMALL", 0)
    for one, key in zip(module._together(store, KEYS), KEYS, strict=True):
        same(one, store.read(key))


def test_examples_are_read_where_they_are_asked_for(tmp_path):
    store = filled(tmp_path)
    for one, key in zip(read_blocks(store, KEYS, adversarial=True), KEYS, strict=True):
        for image, expected in zip(
            one.samples.adversarial, store.read(key, adversarial=True).samples.adversarial, strict=True
        ):
            np.testing.assert_array_equal(image, expected)


def outcome(read):
    try:
        return read()
    except StoreError as error:
        return f"{type(error).__name__}: {error}"


def both_alike(store):
    """Whether the blocks are read; either way of reading says the same of them."""
    alone = outcome(lambda: [store.read(key) for key in KEYS])
    together = outcome(lambda: read_blocks(store, KEYS))
    if isinstance(alone, str):
        assert together == alone
        return False
    for one, other in zip(together, alone, strict=True):
        same(one, other)
    return True


# Where a null stands in place of a count.
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
@pytest.mark.parametrize("place", PLACES)
def test_whatever_byte_is_damaged_both_ways_say_the_same(tmp_path, place):
    store, rng = PLACES[place](filled(tmp_path, staged)), np.random.default_rng(0)
    files = [*tmp_path.glob("store/??/*.parquet"), *tmp_path.glob("packs/*.parquet")]
    intact = 0
    for number in range(60):
        path = files[number % len(files)]
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed[: rng.integers(len(whole))] if number % 10 == 9 else changed)
        intact += both_alike(store)
        path.write_bytes(whole)
    # The changed byte may be one of an example, which nobody asked for, or one without a meaning.
    assert intact < 50
    assert both_alike(store)


EDITS = {
    "a verdict under its old digest": (lambda number: block(number, n=5), False),
    "robust, but misclassified": (lambda number: block(number, correct=np.zeros(7, bool)), True),
    "a count below 0": (lambda number: block(number, forwards=np.full(7, -1.0)), True),
    "a distance beyond eps": (lambda number: block(number, distance=np.full(7, 0.5)), True),
    "a sample twice": (lambda number: block(number, id=["s"] * 7), True),
}


@pytest.mark.parametrize("at", [0, 3, 5])
@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_block_is_named(tmp_path, edit, at):
    store = filled(tmp_path)
    make, sealed = EDITS[edit]
    store.path(KEYS[at]).unlink()
    if sealed:
        store.write(make(at))
    else:
        metadata = pq.read_schema(filled(tmp_path / "other").path(KEYS[at])).metadata
        other = Store(tmp_path / "third")
        other.write(make(at))
        table = pq.read_table(other.path(KEYS[at])).replace_schema_metadata(metadata)
        pq.write_table(table, store.path(KEYS[at]))
    with pytest.raises(StoreError, match=f"{KEYS[at]}.*altered"):
        read_blocks(store, KEYS)
    assert not both_alike(store)


def test_a_block_under_another_key_is_named(tmp_path):
    store = filled(tmp_path)
    store.path(KEYS[2]).write_bytes(store.path(KEYS[3]).read_bytes())
    with pytest.raises(StoreError, match=f"{KEYS[2]}.*another key"):
        read_blocks(store, KEYS)


def test_a_missing_block_is_named(tmp_path):
    store = filled(tmp_path)
    store.path(KEYS[2]).unlink()
    with pytest.raises(StoreError, match=f"{KEYS[2]}.*missing"):
        read_blocks(store, KEYS)


def test_blocks_that_are_held_are_compared_with_what_was_found(tmp_path):
    filled(tmp_path)
    store = Store.holding(tmp_path)
    assert isinstance(store.held, Held)
    assert [one.key for one in read_blocks(store, KEYS)] == KEYS
    store.path(KEYS[1]).unlink()
    Store(tmp_path).write(block(1, n=3))
    reseal(Store(tmp_path), KEYS[1])
    with pytest.raises(StoreError, match="was replaced"):
        read_blocks(store, KEYS)
