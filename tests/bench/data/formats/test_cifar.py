"""CIFAR's original files, made by the tests: read without unpickling, and what is refused."""

import gzip
import io
import pickle
import struct
import tarfile

import numpy as np
import pytest
import torch

from datafiles import PAGE, Planted, noise
from gauntlet.bench.data.load_data import load_data


def python2_batch(pixels, labels, key=b"labels"):
    """A batch of CIFAR opcode by opcode as cPickle of Python 2 wrote the original ones."""
    data = pixels.tobytes()
    parts = [b"\x80\x02}q\x01(", b"U" + bytes([len(key)]) + key, b"](", *(b"K" + bytes([one]) for one in labels), b"e"]
    parts += [b"U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"]
    parts += [b"J" + struct.pack("<i", len(pixels)), b"M" + struct.pack("<H", 3072), b"\x86"]
    parts += [b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"]
    return b"".join([*parts, b"T" + struct.pack("<I", len(data)), data, b"tbu."])


def cifar_folder(root, count=12, classes=10, folder="cifar-10-batches-py", name="test_batch", key=b"labels", seed=0):
    pixels, labels = noise((count, 3072), seed), np.arange(count) % classes
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / name).write_bytes(python2_batch(pixels, labels.tolist(), key))
    return torch.from_numpy(pixels.reshape(-1, 3, 32, 32)) / 255, labels


def test_an_original_batch_gives_the_pixels_and_labels_that_unpickling_gives(tmp_path):
    images, labels = cifar_folder(tmp_path)
    content = (tmp_path / "cifar-10-batches-py/test_batch").read_bytes()
    trusted = pickle.loads(content, encoding="bytes")
    data = load_data(f"cifar10@{tmp_path}")
    assert torch.equal(data.images, torch.from_numpy(trusted[b"data"].reshape(-1, 3, 32, 32)) / 255)
    assert torch.equal(data.images, images)
    assert data.labels.tolist() == trusted[b"labels"] == labels.tolist()
    assert data.ids[:2] == ("cifar10/00000", "cifar10/00001")
    assert (data.classes, data.name) == (10, "cifar10")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_batch_that_was_saved_again_by_any_version_of_python_is_read(tmp_path, protocol):
    pixels = noise((7, 3072))
    (tmp_path / "cifar-10-batches-py").mkdir()
    batch = {
        "data": np.asfortranarray(pixels),
        "labels": np.arange(7, dtype=">i4").tolist(),
        "filenames": ["x.png"] * 7,
    }
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(pickle.dumps(batch, protocol=protocol))
    data = load_data(f"cifar10@{tmp_path}")
    assert torch.equal(data.images, torch.from_numpy(pixels.reshape(-1, 3, 32, 32)) / 255)


def test_the_training_split_is_the_five_batches_one_after_the_other(tmp_path):
    parts = [cifar_folder(tmp_path, name=f"data_batch_{number}", seed=number)[0] for number in range(1, 6)]
    data = load_data(f"cifar10(split=train)@{tmp_path}")
    assert torch.equal(data.images, torch.cat(parts))
    assert data.ids[59] == "cifar10-train/00059"
    assert data.name == "cifar10(split=train)"
    (tmp_path / "cifar-10-batches-py/data_batch_4").unlink()
    with pytest.raises(ValueError, match="has no data_batch_4"):
        load_data(f"cifar10(split=train)@{tmp_path}")


def archive(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_the_original_archive_is_read_without_being_unpacked(tmp_path):
    images, labels = cifar_folder(tmp_path, 5, 100, "cifar-100-python", "test", b"fine_labels")
    content = (tmp_path / "cifar-100-python/test").read_bytes()
    path = archive(
        tmp_path / "cifar-100-python.tar.gz", {"cifar-100-python/meta": b"?", "cifar-100-python/test": content}
    )
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    path.rename(folder / path.name)
    for spec in (f"cifar100@{folder}", f"cifar100@{folder / path.name}"):
        data = load_data(spec)
        assert torch.equal(data.images, images)
        assert (data.labels.tolist(), data.classes) == (labels.tolist(), 100)
    assert [one.name for one in folder.iterdir()] == [path.name]


@pytest.mark.parametrize("inside_of_archive", [False, True])
@pytest.mark.parametrize("where", ["whole", "key", "value", "array"])
def test_a_planted_pickle_is_refused_and_runs_nothing(tmp_path, where, inside_of_archive):
    trap = tmp_path / "executed"
    array = np.array([Planted(trap)], dtype=object)
    planted = {
        "whole": Planted(trap),
        "key": {"data": noise((1, 3072)), "labels": [0], Planted(trap): 1},
        "value": {"data": noise((1, 3072)), "labels": [Planted(trap)]},
        "array": {"data": array, "labels": [0]},
    }[where]
    content = pickle.dumps(planted)
    folder = tmp_path / "data"
    (folder / "cifar-10-batches-py").mkdir(parents=True)
    if inside_of_archive:
        archive(folder / "cifar-10-python.tar.gz", {"cifar-10-batches-py/test_batch": content})
    else:
        (folder / "cifar-10-batches-py/test_batch").write_bytes(content)
    with pytest.raises(ValueError, match=r"test_batch' is refused, and none of its code was run: it names \w+.mkdir"):
        load_data(f"cifar10@{folder}")
    assert not trap.exists()
    if where == "whole":  # it is one that works
        pickle.loads(content)
        assert trap.exists()


@pytest.mark.parametrize(
    "asked",
    ["builtins\neval", "os\nsystem", "numpy\nload", "_codecs\ndecode", "copyreg\n_reconstructor", "numpy\ndtype.mro"],
)
def test_no_other_name_than_those_of_arrays_is_looked_up(tmp_path, asked):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(b"\x80\x02c" + asked.encode() + b"\nU\x041//0\x85R.")
    with pytest.raises(ValueError, match="refused, and none of its code was run"):
        load_data(f"cifar10@{tmp_path}")


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"


BYTES = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"


@pytest.mark.parametrize(
    "planted",
    [
        pytest.param(ARRAY + b"(K\x01M\xff\xff\x85" + BYTES + b"\x89U\x04abcdtb", id="fewer bytes than its sides say"),
        pytest.param(ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + BYTES + b"\x89U\x00tb", id="a negative side"),
        pytest.param(
            ARRAY + b"(K\x01K\x01\x85" + BYTES.replace(b"u1", b"O8") + b"\x89U\x08abcdefghtb", id="of objects"
        ),
        pytest.param(ARRAY + b"(K\x01K\x01\x85U\x02u1\x89U\x01atb", id="a type that is none"),
        pytest.param(ARRAY, id="never filled"),
        pytest.param(b"cnumpy\nndarray\n}U\x01aK\x01sb", id="a class that is given a state"),
    ],
)
def test_an_array_that_makes_no_sense_is_refused(tmp_path, planted):
    (tmp_path / "cifar-10-batches-py").mkdir()
    content = b"\x80\x02}(U\x06labels](K\x00eU\x04data" + planted + b"u."
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(content)
    with pytest.raises(ValueError, match=r"test_batch' cannot be read"):
        load_data(f"cifar10@{tmp_path}")


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([1, 2], "it contains a list, not a dictionary"),
        ({"labels": [0]}, "its `data` is NoneType"),
        ({"data": noise((2, 3071)), "labels": [0, 1]}, r"its `data` is uint8 \(2, 3071\)"),
        ({"data": noise((2, 3072)) / 255, "labels": [0, 1]}, "its `data` is float64"),
        ({"data": noise((2, 3072))}, "it has data.*should have labels"),
        ({"data": noise((2, 3072)), "labels": [0]}, "2 images and 1 labels"),
        ({"data": noise((2, 3072)), "labels": [0.5, 1]}, "its labels are float64"),
        ({"data": noise((2, 3072)), "labels": [9, 10]}, "label 10, outside 0..9 .* number the classes from 0"),
    ],
)
def test_a_batch_with_a_fault_is_refused_with_its_file(tmp_path, batch, message):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(pickle.dumps(batch))
    with pytest.raises(ValueError, match=message):
        load_data(f"cifar10@{tmp_path}")


def test_a_batch_or_archive_that_is_cut_off_or_a_web_page_is_refused(tmp_path):
    cifar_folder(tmp_path)
    batch = tmp_path / "cifar-10-batches-py/test_batch"
    whole = batch.read_bytes()
    for content in (b"", PAGE, whole[:-2000], whole[:30]):
        batch.write_bytes(content)
        with pytest.raises(ValueError, match=r"test_batch' cannot be read .* download it again"):
            load_data(f"cifar10@{tmp_path}")
    folder = tmp_path / "archives"
    folder.mkdir()
    path = archive(folder / "cifar-10-python.tar.gz", {"cifar-10-batches-py/test_batch": whole})
    packed = path.read_bytes()
    for content in (
        b"",
        PAGE,
        packed[: len(packed) // 2],
        gzip.compress(PAGE),
        packed[:200] + bytes(300) + packed[500:],
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"cifar-10-python\.tar\.gz.* cannot be read .* download it again"):
            load_data(f"cifar10@{folder}")
    archive(path, {"cifar-10-batches-py/batches.meta": b"x"})
    with pytest.raises(ValueError, match="it has no cifar-10-batches-py/test_batch"):
        load_data(f"cifar10@{folder}")
