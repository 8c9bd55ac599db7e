"""Small files that ask for much: refused with the size and the limit, before memory is taken for them."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.io import savemat

from gauntlet.bench.data.formats import cifar, idx, npz, parquet, svhn
from gauntlet.bench.data.formats.safe_pickle import read_pickled
from gauntlet.bench.environment import size_limits
from gauntlet.bench.environment.size_limits import SizeLimitError, check_archive, check_unpacked

IMAGES = np.zeros((4, 1, 8, 8), np.float32)
LABELS = np.arange(4)


def lower(monkeypatch, module, **limits):
    for name, value in limits.items():
        monkeypatch.setattr(module, name, value)


def member(array):
    held = io.BytesIO()
    np.save(held, array)
    return held.getvalue()


def claiming(shape, descr="<f8"):
    """An array in NumPy's format, whose header claims this shape, with 8 bytes of content."""
    text = str({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117) + b"\n" + bytes(8)


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("name", ["labels", "ids"])
def test_labels_and_ids_of_an_archive_have_a_limit(tmp_path, monkeypatch, name):
    lower(monkeypatch, npz, MOST_LABELS=10_000)
    members = {"images": member(IMAGES), "labels": member(LABELS)} | {name: member(np.zeros(2000, np.int64))}
    path = archive(tmp_path / "data.npz", **members)
    assert path.stat().st_size < 10_000
    with pytest.raises(ValueError, match=rf"array '{name}' .* has 16128 bytes .* at most 10000 bytes"):
        npz.read_npz(path)


def test_images_of_an_archive_have_a_limit_in_memory_and_on_disk(tmp_path, monkeypatch):
    path = archive(
        tmp_path / "data.npz",
        images=member(np.zeros((100, 1, 8, 8), np.float32)),
        labels=member(np.zeros(100, np.int64)),
    )
    lower(monkeypatch, npz, MOST_IN_MEMORY=1000)
    with pytest.raises(ValueError, match=r"array 'images' .* 25728 bytes .* at most 1000 bytes"):
        npz.read_npz(path)
    lower(monkeypatch, size_limits, MOST_ON_DISK=1000)
    with pytest.raises(ValueError, match=r"array 'images' .* 25728 bytes .* at most 1000 bytes"):
        npz.read_npz(path, held=500)


def test_what_the_folder_for_temporary_files_has_no_room_for_is_refused(monkeypatch):
    monkeypatch.setattr(size_limits.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100})())
    check_unpacked("it", 100)
    with pytest.raises(SizeLimitError, match=r"unpacks to 101 bytes .* has 100 bytes .* left \(TMPDIR"):
        check_unpacked("it", 101)


@pytest.mark.parametrize("name", ["images", "labels"])
def test_a_header_that_claims_more_than_its_entry_has_is_refused_before_numpy_allocates(tmp_path, monkeypatch, name):
    members = {"images": member(IMAGES), "labels": member(LABELS)} | {name: claiming((10**13,))}
    path = archive(tmp_path / "data.npz", **members)
    monkeypatch.setattr(
        np.lib.npyio.NpzFile, "__getitem__", lambda self, key: pytest.fail(key) if key == name else IMAGES
    )
    with pytest.raises(ValueError, match=r"header claims \(10000000000000,\) of float64, and it has 136 bytes"):
        npz.read_npz(path)


@pytest.mark.parametrize("packed", [False, True])
def test_an_idx_header_that_claims_gigabytes_is_refused(tmp_path, packed):
    content = b"\0\0\x08\x03" + struct.pack(">III", 2**31, 2**10, 2**10) + bytes(100)
    path = tmp_path / ("images.gz" if packed else "images")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ValueError, match=rf"\({2**31}, 1024, 1024\) has {2**51} bytes .* at most {2**33} bytes"):
        idx.read_idx(path)


def test_labels_of_an_idx_file_have_a_limit(tmp_path, monkeypatch):
    lower(monkeypatch, idx, MOST_LABELS=1000)
    for name, header, count in (
        ("images", b"\0\0\x08\x03" + struct.pack(">III", 4, 2, 2), 16),
        ("labels", b"\0\0\x08\x01" + struct.pack(">I", 5000), 5000),
    ):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(header + bytes(count)))
    with pytest.raises(
        ValueError, match=r"labels.gz' cannot be read \(an array of shape \(5000,\) has 5000 bytes .* at most 1000"
    ):
        idx.read_idx_pair(tmp_path / "images.gz", tmp_path / "labels.gz")


def test_of_a_gzip_file_no_more_is_unpacked_than_its_header_says(tmp_path):
    """Half a gigabyte of zeros behind a header for four bytes."""
    with gzip.open(tmp_path / "labels.gz", "wb", compresslevel=1) as file:
        file.write(b"\0\0\x08\x01" + struct.pack(">I", 4))
        for _ in range(512):
            file.write(bytes(2**20))
    with pytest.raises(ValueError, match=r"for \(4,\) it should have 12 bytes, not more"):
        idx.read_idx(tmp_path / "labels.gz")


def test_members_that_are_passed_over_count_too(tmp_path, monkeypatch):
    lower(monkeypatch, cifar, MOST_IN_MEMORY=100_000)
    with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as file:
        entry = tarfile.TarInfo("other")
        entry.size = 200_000
        file.addfile(entry, io.BytesIO(bytes(entry.size)))
    assert (tmp_path / "cifar.tar.gz").stat().st_size < 2000
    with pytest.raises(ValueError, match=r"the archive up to 'other' has 200000 bytes .* at most 100000"):
        cifar.read_archive(tmp_path / "cifar.tar.gz", "folder", ["test_batch"])


def test_a_pickle_of_lists_within_lists_takes_no_more_than_it_holds():
    """Forty levels, each of which names the one below ten times: ten to the power of forty entries if they were copied."""
    value = [1]
    for _ in range(40):
        value = [value] * 10
    held = read_pickled(pickle.dumps({"labels": value}), Path("batch"))["labels"]
    assert len(held) == 10
    assert all(part is held[0] for part in held)


def test_a_matlab_file_has_limits(tmp_path, monkeypatch):
    savemat(tmp_path / "test.mat", {"X": np.zeros((32, 32, 3, 5), np.uint8), "y": np.ones((5, 1))}, do_compression=True)
    lower(monkeypatch, svhn, MOST_IN_MEMORY=1000)
    with pytest.raises(ValueError, match=r"array X of shape \(32, 32, 3, 5\) has 15360 bytes .* at most 1000"):
        svhn.read_svhn(tmp_path / "test.mat")


def test_a_parquet_file_of_one_label_many_times_has_a_limit(tmp_path, monkeypatch):
    lower(monkeypatch, parquet, MOST_LABELS=10_000)
    table = pa.table({"image": pa.array([b"x"] * 2000), "label": pa.array([0] * 2000)})
    pq.write_table(table, tmp_path / "data.parquet")
    with pytest.raises(ValueError, match=r"its column of labels has 16000 bytes .* at most 10000"):
        parquet.read_parquet([tmp_path / "data.parquet"])


def test_a_row_group_of_images_has_a_limit(tmp_path, monkeypatch):
    lower(monkeypatch, parquet, MOST_IN_MEMORY=1000)
    pq.write_table(
        pa.table({"image": pa.array([bytes(5000)] * 3), "label": pa.array([0, 1, 0])}), tmp_path / "data.parquet"
    )
    with pytest.raises(ValueError, match=r"row group 0 has \d+ bytes .* at most 1000"):
        parquet.read_parquet([tmp_path / "data.parquet"])


def test_archives_of_weights_and_examples_have_a_limit(tmp_path):
    path = archive(tmp_path / "weights.pt", data=bytes(100_000))
    check_archive(path, 200_000)
    with pytest.raises(SizeLimitError, match=r"unpacked content has 100000 bytes .* at most 1000"):
        check_archive(path, 1000)
    (tmp_path / "none").write_bytes(b"no archive")
    check_archive(tmp_path / "none", 1)
