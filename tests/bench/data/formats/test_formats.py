"""Readers of data files in their original formats, which the tests make themselves, and what they refuse."""

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from gauntlet.bench.data.formats.encoded_images import encoded_images, preprocessed_array
from gauntlet.bench.data.formats.npz import read_npz
from gauntlet.bench.data.formats.parquet import read_parquet
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.data.samples.preprocessing import Preprocessing

PAGE = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>no such file</body></html>"


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(pixels, kind="PNG"):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


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


# --- CIFAR ----------------------------------------------------------------------------------------------------------


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


class Planted:
    """Unpickled by Python, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


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


# --- idx ------------------------------------------------------------------------------------------------------------


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


# --- SVHN -----------------------------------------------------------------------------------------------------------


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


# --- Parquet --------------------------------------------------------------------------------------------------------

FEATURES = {
    "info": {"features": {"image": {"_type": "Image"}, "label": {"names": list("abcde"), "_type": "ClassLabel"}}}
}


def parquet(path, contents, labels, *, names=None, group=3, image="image", label="label", features=None):
    rows = [{"bytes": one, "path": None if names is None else names[i]} for i, one in enumerate(contents)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({image: pa.array(rows, kind), label: pa.array(labels)})
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)


def test_the_rows_of_several_parquet_files_are_read_in_order_and_by_any_index(tmp_path):
    pixels = noise((10, 6, 5, 3))
    contents = [png(one) for one in pixels]
    parquet(tmp_path / "test-00000-of-00002.parquet", contents[:7], [0, 1, 2, 0, 1, 2, 0], features=FEATURES)
    parquet(tmp_path / "test-00001-of-00002.parquet", contents[7:], [1, 2, 0], group=2)
    data = load_data(str(tmp_path))
    expected = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()) / 255
    assert torch.equal(data.images, expected)
    assert (data.labels.tolist(), data.classes) == ([0, 1, 2, 0, 1, 2, 0, 1, 2, 0], 5)
    assert data.ids == tuple("0123456789")
    raw = read_parquet(sorted(tmp_path.glob("*.parquet")))
    for index in ([9, 0, 6, 7], [3], list(range(10)), [8, 2, 8]):
        assert torch.equal(raw.images[index], expected[index])


def test_a_parquet_file_names_its_samples_by_their_paths_where_these_are_unique(tmp_path):
    contents = [png(one) for one in noise((3, 4, 4))]
    parquet(tmp_path / "a.parquet", contents, [0, 1, 0], names=["x.png", "y.png", "z.png"])
    parquet(tmp_path / "b.parquet", contents, [0, 1, 0], names=["x.png", "x.png", "z.png"])
    assert load_data(str(tmp_path / "a.parquet")).ids == ("x.png", "y.png", "z.png")
    assert load_data(str(tmp_path / "b.parquet"), samples="1:3").ids == ("1", "2")


def test_a_column_of_bytes_as_pandas_writes_it_is_read(tmp_path):
    pixels = noise((4, 4, 4))
    frame = pd.DataFrame({"img": [png(one) for one in pixels], "target": [1, 0, 2, 2]})
    frame.to_parquet(tmp_path / "mine.parquet")
    data = load_data(str(tmp_path / "mine.parquet"))
    assert torch.equal(data.images, torch.from_numpy(pixels[:, None]) / 255)
    assert (data.labels.tolist(), data.classes, data.name) == ([1, 0, 2, 2], 3, "mine")


def test_a_parquet_file_with_a_fault_is_refused(tmp_path):
    path, contents = tmp_path / "x.parquet", [png(one) for one in noise((3, 4, 4))]
    for table, message in (
        ({"picture": contents, "label": [0, 1, 0]}, "its columns are picture, label.* must hold the images"),
        ({"image": contents, "klass": [0, 1, 0]}, "its columns are image, klass.* must hold the labels"),
        ({"image": contents, "label": ["cat", "dog", "cat"]}, "its labels are object|its labels are <U"),
        ({"image": contents, "label": [0.0, 1.0, 0.0]}, "its labels are float64"),
        ({"image": contents, "label": [0, None, 0]}, "1 rows have no label"),
        ({"image": ["a", "b", "c"], "label": [0, 1, 0]}, "its images are of type string"),
        ({"image": [contents[0], None, contents[1]], "label": [0, 1, 0]}, "1 rows have a path but no bytes"),
        ({"image": [contents[0], PAGE, contents[1]], "label": [0, 1, 0]}, r"row 1 of '.*x\.parquet' cannot be read"),
        (
            {"image": [contents[0], png(noise((5, 4))), contents[1]], "label": [0, 1, 0]},
            "row 1 of .* one size and mode",
        ),
        ({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}, "it has no rows"),
    ):
        pq.write_table(pa.table(table), path)
        with pytest.raises(ValueError, match=message):
            load_data(str(path))
    parquet(path, contents, [0, 1, 0])
    whole = path.read_bytes()
    for content in (b"", PAGE, whole[: len(whole) // 2], whole[:4] + bytes(80) + whole[84:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.parquet' cannot be read"):
            load_data(str(path))


def test_a_part_of_a_set_in_several_files_that_is_missing_is_named(tmp_path):
    for number in (0, 2):
        parquet(tmp_path / f"test-0000{number}-of-00003.parquet", [png(one) for one in noise((3, 4, 4))], [0, 1, 0])
    with pytest.raises(ValueError, match="part 1 of the same set is missing"):
        load_data(str(tmp_path))


# --- Tiny ImageNet and ImageNet -------------------------------------------------------------------------------------


def tiny_folder(root, count=8, classes=200, side=64):
    names = [f"n{number:08d}" for number in range(100, 100 + classes)]
    pixels = noise((count, side, side, 3))
    (root / "val/images").mkdir(parents=True)
    lines = []
    for i, one in enumerate(pixels):
        (root / f"val/images/val_{i}.JPEG").write_bytes(png(one))
        lines.append(f"val_{i}.JPEG\t{names[(7 * i) % classes]}\t0\t32\t44\t62")
    (root / "val/val_annotations.txt").write_text("\n".join(lines) + "\n")
    (root / "wnids.txt").write_text("\n".join(reversed(names)) + "\n")
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()) / 255, [(7 * i) % classes for i in range(count)]


def test_tiny_imagenets_validation_images_get_their_labels_from_the_list_beside_them(tmp_path):
    images, labels = tiny_folder(tmp_path / "tiny-imagenet-200")
    for spec in (f"tiny-imagenet@{tmp_path}", f"tiny-imagenet@{tmp_path / 'tiny-imagenet-200'}"):
        data = load_data(spec)
        assert torch.equal(data.images, images)
        assert (data.labels.tolist(), data.classes) == (labels, 200)
        assert data.ids[:2] == ("val_0.JPEG", "val_1.JPEG")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_0.JPEG n00000100", "a line has no file or no class"),
        ("../../etc/passwd\tn00000100", "is not a plain file name"),
        ("val_0.JPEG\tn99999999", "class 'n99999999' is not in wnids.txt"),
        ("val_99.JPEG\tn00000100", r"val_99\.JPEG' cannot be read"),
    ],
)
def test_a_list_of_tiny_imagenet_with_a_fault_is_refused(tmp_path, line, message):
    tiny_folder(tmp_path)
    (tmp_path / "val/val_annotations.txt").write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        load_data(f"tiny-imagenet@{tmp_path}")
    (tmp_path / "wnids.txt").unlink()
    if "n99999999" in line:
        with pytest.raises(ValueError, match=r"has 1 classes, not 200: put wnids\.txt"):
            load_data(f"tiny-imagenet@{tmp_path}")


def imagenet_folder(root, files, classes=1000):
    for number in range(classes):
        (root / f"val/n{number:08d}").mkdir(parents=True)
    for name, pixels in files.items():
        (root / "val" / name).write_bytes(png(pixels, "JPEG"))


def test_imagenets_folders_are_numbered_as_torchvision_does_and_one_that_is_missing_is_told(tmp_path):
    grey = np.full((300, 280), 77, np.uint8)
    files = {
        "n00000999/ILSVRC2012_val_00000002.JPEG": noise((300, 280, 3)),
        "n00000007/ILSVRC2012_val_00000009.JPEG": noise((260, 330, 3), 1),
        "n00000007/ILSVRC2012_val_00000001.JPEG": grey,
    }
    imagenet_folder(tmp_path, files)
    for root in (tmp_path, tmp_path / "val"):
        data = load_data(f"imagenet@{root}")
        assert data.ids == (
            "n00000007/ILSVRC2012_val_00000001.JPEG",
            "n00000999/ILSVRC2012_val_00000002.JPEG",
            "n00000007/ILSVRC2012_val_00000009.JPEG",
        )
        assert data.labels.tolist() == [7, 999, 7]
        assert data.images.shape == (3, 3, 224, 224)
        assert (data.images[0] * 255).round().unique().tolist() == [77]
        assert (data.classes, data.name) == (1000, "imagenet(resize=256, crop=224, interpolation=bilinear)")
    (tmp_path / "val/n00000500").rmdir()
    with pytest.raises(ValueError, match="has 999 sub-folders, not one for each of the 1000 classes"):
        load_data(f"imagenet@{tmp_path}")


# --- numpy archives -------------------------------------------------------------------------------------------------


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


# --- pictures -------------------------------------------------------------------------------------------------------


def test_formats_that_start_programs_are_not_decoded(tmp_path):
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n(executed) print\n"
    for name, content in (("a/1.png", postscript), ("b/1.png", png(noise((4, 4))))):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
    assert Image.open(io.BytesIO(postscript)).format == "EPS"
    with pytest.raises(ValueError, match=r"1\.png' cannot be read"):
        load_data(str(tmp_path))


def test_a_picture_that_is_damaged_anywhere_is_refused_or_read_but_never_breaks_out(tmp_path):
    """Pillow's decoders raise what they stumble over; a reader must turn all of it into a sentence."""
    generator, said, read = np.random.default_rng(0), [], []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        whole = png(noise((9, 8, 3)), kind)
        for turn in range(60):
            damaged = bytearray(whole)
            for at in generator.integers(0, len(whole), 3):
                damaged[at] = generator.integers(0, 256)
            content = bytes(damaged[: generator.integers(1, len(whole)) if turn % 2 else None])
            try:
                found = encoded_images(lambda rows, content=content: [content], lambda row: "the image", 1)[0]
            except ValueError as error:
                said.append(str(error))
            else:
                read.append(found)
    assert said
    assert read
    assert all(one.startswith("the image ") for one in said)


def test_arrays_other_than_bytes_are_not_resized(tmp_path):
    np.savez(tmp_path / "x.npz", images=noise((4, 1, 8, 8)) / 255, labels=np.arange(4))
    with pytest.raises(ValueError, match=r"float64 .* cannot be preprocessed"):
        load_data(f"{tmp_path / 'x.npz'}(resize=16)")
    with pytest.raises(ValueError, match="cannot be preprocessed"):
        preprocessed_array(noise((4, 2, 8, 8)), Preprocessing(resize=4))


SHARED = os.environ.get("GAUNTLET_SHARED_DATA")


@pytest.mark.skipif(not SHARED, reason="GAUNTLET_SHARED_DATA does not name a folder with real images")
@pytest.mark.parametrize(("name", "count", "shape"), [("cifar10", 112, (3, 32, 32)), ("mnist", 126, (1, 28, 28))])
def test_the_first_thousand_real_images_are_as_described(name, count, shape):
    data = load_data(f"{name}@{Path(SHARED) / f'{name}_test_1000.npz'}")
    assert data.images.shape == (1000, *shape)
    assert int(data.labels.bincount().max()) == count
    assert data.ids[999] == f"{name}/00999"
