"""Examples as differences of levels: the same arrays come back, in little room."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gauntlet.leaderboard.examples.clean_images import COLUMN, clean_path, keep_apart
from gauntlet.leaderboard.examples.differences import clean_digest, decode, encode

RANDOM = np.random.default_rng(0)
CLEAN = RANDOM.integers(0, 256, (3, 5, 7), dtype=np.uint8)


def values(levels):
    return np.asarray(levels, np.uint8).astype(np.float32) / np.float32(255)


@pytest.mark.parametrize(("most", "step"), [(8, 1), (8, 2), (7, 1), (14, 2), (16, 2), (127, 1), (0, 1), (255, 1)])
def test_the_same_example_comes_back(most, step):
    moved = CLEAN.astype(int) + step * RANDOM.integers(-(most // step), most // step + 1, CLEAN.shape)
    image = values(np.clip(moved, 0, 255) if step == 1 else np.where((moved < 0) | (moved > 255), CLEAN, moved))
    encoded = encode(image, CLEAN)
    back = decode(encoded, CLEAN)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, image)
    few = np.abs(np.rint(image * 255) - CLEAN).max() <= 7 * step
    assert len(encoded) == 1 + (-(-CLEAN.size // 2) if few else CLEAN.size)


@pytest.mark.parametrize(
    "image",
    [
        values(CLEAN) + np.float32(1e-4),
        np.nextafter(values(CLEAN), np.float32(2)),
        values(CLEAN).astype(np.float64),
        values(CLEAN)[:, :4],
        values(CLEAN) + np.float32(1),
        # It would come back as 0.0.
        np.where(np.arange(CLEAN.size).reshape(CLEAN.shape) == 5, np.float32(-0.0), values(CLEAN)),
    ],
)
def test_other_arrays_are_not_encoded(image):
    assert encode(image, CLEAN) is None


def test_bytes_that_are_no_example_are_refused():
    for wrong in (
        bytes([3]) + bytes(CLEAN.size),
        bytes([1]) + bytes(CLEAN.size - 1),
        bytes([1]) + b"\x80" * CLEAN.size,
    ):
        with pytest.raises(ValueError):
            decode(wrong, CLEAN)


def test_a_digest_is_that_of_levels_and_shapes():
    assert clean_digest([CLEAN]) == clean_digest([CLEAN.copy()])
    assert len({clean_digest([CLEAN]), clean_digest([CLEAN.transpose(0, 2, 1)]), clean_digest([CLEAN, CLEAN])}) == 3


@pytest.mark.parametrize("digest", ["../../elsewhere", "/tmp/elsewhere", clean_digest([CLEAN + 1]), ""])
def test_clean_images_of_another_digest_are_written_nowhere(tmp_path, digest):
    table = pa.table({"id": ["a"], COLUMN: pa.array([CLEAN.tobytes()], pa.binary())})
    written = []
    with pytest.raises(ValueError, match="not those of its digest"):
        keep_apart(
            table, tmp_path, {COLUMN: digest, "shape": list(CLEAN.shape)}, lambda path, save: written.append(path)
        )
    assert written == []
    own = clean_digest([CLEAN])
    keep_apart(table, tmp_path, {COLUMN: own, "shape": list(CLEAN.shape)}, lambda path, save: written.append(path))
    assert written == [clean_path(tmp_path, own)]
