"""Large numpy archives: mapped rather than read, and never unpickled."""

import numpy as np
import pytest
import torch

from datafiles import Planted, noise
from gauntlet.bench.data.formats.npz import read_npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_large_archive_is_mapped_and_gives_the_same_as_a_small_one(tmp_path, save, order):
    path, pixels = tmp_path / "x.npz", noise((40, 3, 8, 8))
    save(path, images=np.asarray(pixels, order=order), labels=np.arange(40) % 4)
    small, large = read_npz(path), read_npz(path, held=100)
    assert torch.equal(large.images[:], torch.from_numpy(pixels) / 255)
    assert torch.equal(large.images[[3, 39, 3]], small.images[[3, 39, 3]])
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 3] ^= 0xFF
    path.write_bytes(bytes(damaged))
    with pytest.raises(ValueError, match=r"array 'images' of data file .* cannot be read"):
        read_npz(path, held=100)


def test_a_large_archive_of_objects_runs_nothing(tmp_path):
    trap = tmp_path / "executed"
    np.savez(tmp_path / "x.npz", images=np.array([Planted(trap)] * 99, dtype=object), labels=np.zeros(99, int))
    for held in (10, 10**9):
        with pytest.raises(ValueError, match=r"array 'images' .* no Python objects"):
            read_npz(tmp_path / "x.npz", held=held)
    assert not trap.exists()
