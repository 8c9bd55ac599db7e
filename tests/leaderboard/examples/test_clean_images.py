"""Blocks with 8-bit examples bring their clean images along, which the folder keeps under their digest alone."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import pyarrow.parquet as pq
import pytest

from builders import record, samples
from gauntlet.leaderboard.examples.clean_images import clean_path
from gauntlet.leaderboard.examples.differences import clean_digest
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
