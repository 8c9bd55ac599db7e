"""Blocks with 8-bit examples bring their clean images along, which the folder keeps under their digest alone."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from io import BytesIO

import numpy as np
import pyarrow.parquet as pq
import pytest

from builders import record, samples
from gauntlet.leaderboard.examples.clean_images import clean_path, read_clean, write_clean
from gauntlet.leaderboard.examples.differences import clean_digest
from gauntlet.leaderboard.results.atomic_files import replace_file
from gauntlet.leaderboard.results.block_file import METADATA, AlteredError, from_file, table_bytes, to_bytes
from gauntlet.leaderboard.results.store import Store

LEVELS = np.random.default_rng(0).integers(8, 240, (3, 1, 4, 5), dtype=np.uint8)


@pytest.fixture
def block():
    """A block of three samples, the first of which is broken by an 8-bit example."""
    whole = samples([False, True, True])
    near = (LEVELS[0] + 2).astype(np.float32) / np.float32(255)
    return record(replace(whole, adversarial=np.array([near, None, None], dtype=object), clean=tuple(LEVELS)))


def said_to_be(content, digest):
    """The block, its clean images said to have this digest."""
    table = pq.read_table(BytesIO(content))
    metadata = json.loads(table.schema.metadata[METADATA]) | {"clean": digest}
    return table_bytes(table.replace_schema_metadata({METADATA: json.dumps(metadata).encode()}))


def test_clean_images_lie_under_their_digest_and_the_examples_come_back(block, tmp_path):
    store = Store(tmp_path)
    assert store.add(block.key, to_bytes(block))
    assert clean_path(tmp_path, clean_digest(list(LEVELS))).is_file()
    (example, *_) = store.read(block.key, adversarial=True).samples.adversarial
    np.testing.assert_array_equal(example, block.samples.adversarial[0])


@pytest.mark.parametrize("digest", ["../../elsewhere", "ab" * 32])
def test_clean_images_of_another_digest_are_refused_and_written_nowhere(block, tmp_path, digest):
    forged = said_to_be(to_bytes(block), digest)
    with pytest.raises(AlteredError, match="not those of its digest"):
        from_file(BytesIO(forged), adversarial=True)
    with pytest.raises(ValueError, match="not those of its digest"):
        Store(tmp_path / "out").add(block.key, forged)
    assert not list(tmp_path.rglob("*.parquet"))


def test_of_many_blocks_the_images_that_were_read_last_are_kept_in_memory_and_no_more(tmp_path):
    levels = np.random.default_rng(1).integers(0, 256, (12, 40, 3, 128, 128), dtype=np.uint8)
    digests = [clean_digest(list(block)) for block in levels]
    for digest, block in zip(digests, levels, strict=True):
        replace_file(clean_path(tmp_path, digest), lambda file, block=block: write_clean(file, list(block)))
    tracemalloc.start()
    try:
        began, _ = tracemalloc.get_traced_memory()
        for digest, block in zip(digests, levels, strict=True):
            np.testing.assert_array_equal(read_clean(tmp_path, digest), block)
        assert tracemalloc.get_traced_memory()[0] - began < 2**24 + levels[0].nbytes
    finally:
        tracemalloc.stop()
    latest = read_clean(tmp_path, digests[-1])
    assert read_clean(tmp_path, digests[-1]) is latest
