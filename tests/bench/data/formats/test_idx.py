"""The idx files of MNIST, made by the tests, and what is refused."""

import gzip
import struct

import numpy as np
import pytest
import torch

from datafiles import PAGE, noise
from gauntlet.bench.data.load_data import load_data


def idx(values):
    return b"\0\0\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def mnist_folder(folder, count=6, end="", mark="-", split="t10k"):
    pixels, labels = noise((count, 28, 28)), (np.arange(count) % 10).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in ((f"images{mark}idx3", pixels), (f"labels{mark}idx1", labels)):
        content = idx(values)
        (folder / f"{split}-{name}-ubyte{end}").write_bytes(gzip.compress(content) if end else content)
    return torch.from_numpy(pixels[:, None]) / 255, labels


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("mark", ["-", "."])
def test_idx_files_are_read_plain_and_gzipped(tmp_path, end, mark):
    images, labels = mnist_folder(tmp_path / "MNIST/raw", end=end, mark=mark)
    data = load_data(f"mnist@{tmp_path}")
    assert torch.equal(data.images, images)
    assert (data.labels.tolist(), data.classes, data.ids[5]) == (labels.tolist(), 10, "mnist/00005")
    mnist_folder(tmp_path / "MNIST/raw", 8, end=end, mark=mark, split="train")
    assert len(load_data(f"mnist(split=train)@{tmp_path}")) == 8


@pytest.mark.parametrize("end", ["", ".gz"])
def test_an_idx_file_that_is_cut_off_or_another_kind_of_file_is_refused(tmp_path, end):
    mnist_folder(tmp_path, end=end)
    path = tmp_path / f"t10k-images-idx3-ubyte{end}"
    content = idx(noise((6, 28, 28)))
    floats = b"\0\0\x0d\x03" + content[4:]
    for bad in (b"", content[:3], content[:10], content[:-1], content + b"\0", floats, PAGE):
        path.write_bytes(gzip.compress(bad) if end else bad)
        with pytest.raises(ValueError, match=rf"{path.name}' cannot be read .* download it again"):
            load_data(f"mnist@{tmp_path}")
    if end:
        packed = gzip.compress(content)
        for bad in (PAGE, packed[:-500], packed[:100] + bytes(50) + packed[150:]):
            path.write_bytes(bad)
            with pytest.raises(ValueError, match=rf"{path.name}' cannot be read .* download it again"):
                load_data(f"mnist@{tmp_path}")


def test_images_and_labels_that_do_not_belong_together_are_refused(tmp_path):
    mnist_folder(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(5, np.uint8)))
    with pytest.raises(ValueError, match=r"\(6, 28, 28\) and \(5,\)"):
        load_data(f"mnist@{tmp_path}")
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.full(6, 10, np.uint8)))
    with pytest.raises(ValueError, match=r"label 10, outside 0\.\.9"):
        load_data(f"mnist@{tmp_path}")
