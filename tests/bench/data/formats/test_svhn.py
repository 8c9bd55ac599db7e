"""The mat files of SVHN, made by the tests, and what is refused."""

import numpy as np
import pytest
import torch
from scipy.io import savemat

from datafiles import PAGE, noise
from gauntlet.bench.data.load_data import load_data


def test_svhn_turns_its_axes_and_its_ten_into_a_zero(tmp_path):
    pixels, labels = noise((12, 3, 32, 32)), np.arange(1, 13) % 10
    told = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
    savemat(tmp_path / "test_32x32.mat", {"X": pixels.transpose(2, 3, 1, 0), "y": told}, do_compression=True)
    for spec in (f"svhn@{tmp_path}", f"svhn@{tmp_path / 'test_32x32.mat'}"):
        data = load_data(spec)
        assert torch.equal(data.images, torch.from_numpy(pixels) / 255)
        assert data.labels.tolist() == labels.tolist()
        assert data.ids[11] == "svhn/00011"


def test_a_mat_file_with_a_fault_is_refused(tmp_path):
    path = tmp_path / "test_32x32.mat"
    fine = {"X": noise((32, 32, 3, 4)), "y": np.ones((4, 1), np.uint8)}
    for planted, message in (
        ({"X": fine["X"]}, "cannot be read .* download it again"),
        ({**fine, "X": noise((4, 32, 32, 3))}, r"X is uint8 \(4, 32, 32, 3\)"),
        ({**fine, "X": fine["X"] / 255}, "X is float64"),
        ({**fine, "y": np.ones((3, 1), np.uint8)}, r"y is \(3, 1\)"),
        ({**fine, "y": np.full((4, 1), 0.5)}, "labels are float64"),
        ({**fine, "y": np.full((4, 1), 11, np.uint8)}, "label 11, outside 0..9"),
    ):
        savemat(path, planted)
        with pytest.raises(ValueError, match=message):
            load_data(f"svhn@{tmp_path}")
    savemat(path, fine, do_compression=True)
    whole = path.read_bytes()
    for content in (b"", PAGE, PAGE * 10, whole[: len(whole) // 2], whole[:200] + bytes(400) + whole[600:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"test_32x32\.mat' cannot be read"):
            load_data(f"svhn@{tmp_path}")
