"""Schema 3: results of others are refused with a sentence that says what to do, and every byte is under a digest."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from builders import intact, record, samples
from gauntlet.bench.run.run_folder import RunError, load_run
from gauntlet.leaderboard.results.block_file import from_file, metadata_of, to_bytes
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.record import SCHEMA_VERSION, Flag
from gauntlet.leaderboard.results.store import Store

KEY = "ab" + "0" * 62


def planted(n=4):
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4) / 16
    whole = samples(np.zeros(n, bool), adversarial=[image] * n)
    flag = Flag("x", "block", "a sentence", needs=("eot",), evidence=(("share", 0.5),), samples=("s0",))
    logits = np.ones((n, 3))
    return record(whole, key=KEY, flags=(flag,), provenance={"device": "cpu"}, clean_logits=logits)


def stored(tmp_path):
    store = Store(tmp_path)
    store.write(planted())
    return store


def change_metadata(store, change):
    """Edit the metadata of the stored block, as somebody would who knows Parquet but no digest."""
    path = store.path(KEY)
    table = pq.read_table(path)
    fields = json.loads(table.schema.metadata[b"gauntlet"])
    change(fields)
    pq.write_table(table.replace_schema_metadata({b"gauntlet": json.dumps(fields).encode()}), path)


def test_what_is_written_comes_back_and_is_intact(tmp_path):
    store = stored(tmp_path)
    assert intact(store, KEY)
    back = store.read(KEY, adversarial=True)
    assert back.flags == planted().flags
    assert back.cell == planted().cell
    assert back.behaviour == ""
    assert back.stats.speculative_passes == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields["cell"].update(model="another"),
        lambda fields: fields["stats"].update(seconds=0.1),
        lambda fields: fields["flags"].clear(),
        lambda fields: fields["flags"][0]["evidence"][0].__setitem__(1, 0.1),
        lambda fields: fields["provenance"].update(device="cuda"),
        lambda fields: fields.update(behaviour="something"),
        lambda fields: fields.update(clean_logits=""),
        lambda fields: fields.update(leaf="0" * 64),
        lambda fields: fields.update(encoding="png"),
    ],
)
def test_an_edit_of_any_metadata_is_noticed(tmp_path, change):
    store = stored(tmp_path)
    change_metadata(store, change)
    assert not intact(store, KEY)


def test_the_leaf_is_of_the_content_and_not_of_the_file(tmp_path):
    block = planted()
    first = metadata_of(BytesIO(to_bytes(block)))
    table = pq.read_table(BytesIO(to_bytes(block)))
    sink = BytesIO()
    pq.write_table(table, sink, compression="gzip")
    assert sink.getvalue() != to_bytes(block)
    assert metadata_of(BytesIO(sink.getvalue()))["leaf"] == first["leaf"]
    changed = dataclasses.replace(block, stats=dataclasses.replace(block.stats, seconds=2.0))
    assert metadata_of(BytesIO(to_bytes(changed)))["leaf"] != first["leaf"]


def test_verdicts_and_examples_have_digests_of_their_own():
    block = planted()
    bare = dataclasses.replace(block, samples=dataclasses.replace(block.samples, adversarial=[None] * 4))
    first, second = (metadata_of(BytesIO(to_bytes(one))) for one in (block, bare))
    assert first["examples_digest"] != second["examples_digest"]
    other = dataclasses.replace(block, samples=dataclasses.replace(block.samples, robust=np.ones(4, bool)))
    third = metadata_of(BytesIO(to_bytes(other)))
    assert third["examples_digest"] == first["examples_digest"]
    assert third["verdict_digest"] != first["verdict_digest"]


@pytest.mark.parametrize("schema", [1, 2, SCHEMA_VERSION + 1])
def test_a_block_of_another_schema_is_refused_with_what_to_do(tmp_path, schema):
    store = stored(tmp_path)
    change_metadata(store, lambda fields: fields.update(schema=schema))
    for read in (store.read, store.info, partial(intact, store)):
        with pytest.raises(
            StoreError, match=rf"schema {schema}.*reads schema {SCHEMA_VERSION}.*run the same command again"
        ):
            read(KEY)


def test_a_run_of_schema_2_is_refused_with_what_to_do(tmp_path):
    folder = tmp_path / "runs" / "abc"
    folder.mkdir(parents=True)
    (tmp_path / "latest-run.json").write_text('{"run": "abc"}')
    (folder / "run.json").write_text(json.dumps({"cells": [], "skipped": [], "context": {}}))
    with pytest.raises(
        RunError,
        match=r"schema 2, and gauntlet reads schema 3 here: lift schema 2 by `gauntlet migrate`, run the same command again, or",
    ):
        load_run(Path(tmp_path))


def test_a_record_read_without_examples_says_so(tmp_path):
    block = from_file(BytesIO(to_bytes(planted())))
    assert block.samples.adversarial == [None] * 4
