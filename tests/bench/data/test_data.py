"""Evaluation data: sources, validation, selection and the blocks of the store."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from builders import ROOT
from gauntlet.bench.data.catalog import DATA
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.data.samples.dataset import BLOCK, Data, block_digest, blocks
from gauntlet.bench.data.samples.in_memory import from_arrays, from_dataset
from gauntlet.bench.data.samples.selection import select


def some(count=6, channels=1, height=5, width=7, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, height, width, generator=generator), torch.arange(count) % classes


def sha256(data):
    digest = hashlib.sha256(data.images.numpy().tobytes())
    digest.update(data.labels.numpy().tobytes())
    digest.update("\n".join(data.ids).encode())
    return digest.hexdigest()


# --- digits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count", "digest"),
    [
        ("digits", 797, "bb7b4fdb1322476fa822205f20a71c5b945ece4ffbd8fafd9ecbd3462af1428d"),
        ("digits-train", 1000, "98b61c402aba0d1438a459c900f723123c4c5a217100df5bfb0a72d300d5e417"),
    ],
)
def test_the_digits_never_change_in_a_byte_a_label_an_id_or_their_order(name, count, digest):
    data = load_data(name)
    assert len(data) == count
    assert data.images.dtype == torch.float32
    assert data.images.shape == (count, 1, 8, 8)
    assert (data.name, data.spec, data.classes) == (name, name, 10)
    assert data.positions == tuple(range(count))
    assert sha256(data) == digest


def test_the_two_parts_of_the_digits_are_disjoint_and_together_are_scikit_learns_set():
    from sklearn.datasets import load_digits

    parts = [load_data("digits"), load_data("digits-train")]
    bunch = load_digits()
    seen = {}
    for data in parts:
        for image, label, one in zip(data.images, data.labels, data.ids, strict=True):
            seen[one] = (image[0].numpy(), int(label))
    assert len(seen) == 797 + 1000 == len(bunch.target)
    for index in range(len(bunch.target)):
        image, label = seen[f"digits/{index:04d}"]
        assert label == bunch.target[index]
        assert np.array_equal(image * 16, bunch.images[index])


def test_the_split_of_the_digits_is_that_of_scikit_learn():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    labels = load_digits().target
    expected = train_test_split(np.arange(len(labels)), train_size=1000, stratify=labels, random_state=0)
    for part, indices in zip(("digits-train", "digits"), expected, strict=True):
        assert load_data(part).ids == tuple(f"digits/{index:04d}" for index in indices)


def test_loading_the_digits_imports_no_scikit_learn():
    code = (
        "import sys\n"
        "from gauntlet.bench.data.load_data import load_data\n"
        "assert len(load_data('digits')) == 797\n"
        "assert not {'sklearn', 'scipy', 'pandas'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_first_hundred_digits_hold_every_class():
    assert set(load_data("digits", samples="100").labels.tolist()) == set(range(10))


def test_listing_the_data_sets_with_their_cards_imports_no_torch():
    code = (
        "import sys\n"
        "from gauntlet.bench.data.catalog import DATA\n"
        "cards = [DATA.get(name).card for name in DATA.names()]\n"
        "assert [card.name for card in cards] == DATA.names(), cards\n"
        "assert {'digits', 'cifar10', 'imagenet', 'svhn'} <= set(DATA.names())\n"
        "heavy = {'torch', 'sklearn', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_cards_tell_the_truth_about_classes_and_shape():
    for name in ("digits", "digits-train"):
        entry = DATA.get(name)
        data = entry.load()
        assert entry.card.name == data.name == name
        assert entry.card.classes == data.classes
        assert entry.card.shape == tuple(data.images.shape[1:])
        assert entry.card.licence
        assert entry.card.source


# --- validation, with planted faults --------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), -0.25, 1.5])
def test_a_pixel_outside_the_box_is_refused_with_its_sample_position_and_value(bad):
    images, labels = some()
    images[4, 0, 2, 3] = bad
    with pytest.raises(ValueError, match=r"sample 'e' \(position 4\)") as error:
        from_arrays(images, labels, ids="abcdef")
    assert repr(bad) in str(error.value)
    assert "(0, 2, 3)" in str(error.value)
    assert "1 of 6 samples" in str(error.value)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda x: (x * 255).round(), "divide by 255"),
        (lambda x: (x * 16).round(), "divide by 16"),
        (lambda x: x * 65535, "divide by the largest value"),
        (lambda x: (x - 0.5) / 0.2, "normalise inside the model"),
        (lambda x: x * 2 - 1, "normalise inside the model"),
        (lambda x: x / x.max() * (1 + 1e-6), "clip"),
        (lambda x: torch.where(x == x.max(), float("nan"), x), "NaN"),
    ],
)
def test_images_outside_the_box_are_refused_with_the_way_out(change, hint):
    images, labels = some()
    images[0, 0, 0, 0], images[0, 0, 0, 1] = 0, 1
    with pytest.raises(ValueError, match=hint):
        from_arrays(change(images), labels)


@pytest.mark.parametrize(
    ("planted", "message"),
    [
        (
            {"labels": torch.tensor([0, 1, 2, 3, 0, 1]), "classes": 3},
            r"sample '3' \(position 3\).* label 3, outside 0..2",
        ),
        ({"labels": torch.tensor([0, 1, -1, 2, 0, 1])}, r"sample '2' \(position 2\).* label -1"),
        ({"labels": torch.tensor([1, 2, 3])}, "6 images and 3 labels"),
        ({"labels": torch.eye(6)[:, :3].long()}, "argmax"),
        ({"labels": torch.zeros(6)}, "whole numbers"),
        ({"labels": torch.zeros(6, dtype=torch.bool)}, "whole numbers"),
        ({"labels": np.array(list("abcdef"))}, "not numeric"),
        ({"ids": list("abcde")}, "6 images and 5 ids"),
        ({"ids": list("abcdec")}, "id 'c' .* occurs 2 times, first at index 2 and 5"),
        ({"ids": ["a", "b", "", "d", "e", "f"]}, "id '' at index 2"),
        ({"ids": ["a", "b\nc", "c", "d", "e", "f"]}, "index 1"),
        ({"ids": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]}, "id 0.5 at index 0"),
        ({"classes": 1, "labels": torch.zeros(6).long()}, "at least 2"),
        ({"images": torch.rand(6, 5)}, r"\(6, 5\)"),
        ({"images": torch.rand(6, 1, 1, 5, 7)}, r"give \(N, C, H, W\)"),
        ({"images": torch.rand(6, 1, 0, 7)}, "no pixels"),
        ({"images": torch.zeros(6, 1, 5, 7, dtype=torch.int64)}, "uint8 in 0..255"),
        ({"images": torch.zeros(6, 1, 5, 7, dtype=torch.float16)}, "float32 or float64"),
        ({"images": torch.zeros(6, 1, 5, 7, dtype=torch.bool)}, "dtype"),
        ({"images": torch.zeros(0, 1, 5, 7), "labels": torch.zeros(0).long()}, "no samples"),
        ({"images": torch.rand(6, 32, 32, 3)}, "transpose"),
        ({"images": np.zeros((6, 28, 28, 1), np.uint8)}, "transpose"),
        ({"images": np.eye(7, dtype=np.uint8)[:6, None, None]}, "only 0 and 1.* multiply by 255"),
    ],
)
def test_a_planted_fault_is_refused_with_its_place_and_the_way_out(planted, message):
    images, labels = some()
    with pytest.raises(ValueError, match=message):
        from_arrays(**{"images": images, "labels": labels, **planted})


def test_data_built_by_hand_are_validated_too():
    images, labels = some(2)
    fine = {"name": "x", "images": images, "labels": labels, "ids": ("a", "b"), "classes": 3, "spec": "x"}
    Data(**fine, positions=(7, 3))
    with pytest.raises(ValueError, match=r"position 7 .* occurs 2 times"):
        Data(**fine, positions=(7, 7))
    with pytest.raises(ValueError, match="negative"):
        Data(**fine, positions=(-1, 0))
    with pytest.raises(ValueError, match=r"position 9\) .* 3.0"):
        Data(**{**fine, "images": images.index_fill(0, torch.tensor(1), 3.0)}, positions=(8, 9))


# --- arrays in memory -----------------------------------------------------------------------------------------------


def test_bytes_become_float32_divided_by_255():
    images = np.arange(256, dtype=np.uint8).reshape(2, 1, 16, 8)
    data = from_arrays(images, [0, 1])
    assert data.images.dtype == torch.float32
    assert torch.equal(data.images.flatten(), torch.arange(256) / 255)


def test_images_without_a_channel_axis_gain_one():
    data = from_arrays(np.zeros((4, 9, 3), np.float64), np.array([0, 1, 2, 1], np.uint8))
    assert data.images.shape == (4, 1, 9, 3)
    assert data.images.dtype == torch.float64
    assert data.labels.dtype == torch.int64
    assert (data.classes, data.ids, data.name) == (3, ("0", "1", "2", "3"), "memory")


@pytest.mark.parametrize("shape", [(2, 3, 32, 3), (2, 1, 5, 3), (2, 3, 3, 3), (2, 2, 5, 3), (2, 6, 7, 9)])
def test_channels_first_shapes_are_not_mistaken_for_channels_last(shape):
    assert from_arrays(torch.zeros(shape), [0, 1]).images.shape == shape


def test_data_do_not_change_when_the_callers_arrays_do():
    images, labels = some()
    array = images.numpy().copy()
    data, other = from_arrays(images, labels), from_arrays(array, labels.numpy())
    before = data.images.clone()
    images.zero_()
    labels.fill_(1)
    array[:] = 0
    assert torch.equal(data.images, before)
    assert torch.equal(other.images, before)
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_read_only_foreign_ordered_and_differentiable_arrays_are_taken():
    images, labels = some()
    array = images.numpy().astype(">f4")
    array.setflags(write=False)
    data = from_arrays(array, labels.numpy().astype(">i2"))
    assert torch.equal(data.images, images)
    assert data.labels.tolist() == labels.tolist()
    assert not from_arrays(images.clone().requires_grad_(), labels).images.requires_grad


# --- files ----------------------------------------------------------------------------------------------------------


def test_an_npz_gives_its_images_labels_and_ids(tmp_path):
    images, labels = some()
    path = tmp_path / "mine.npz"
    np.savez_compressed(
        path, images=(images * 255).to(torch.uint8).numpy(), labels=labels.numpy(), ids=np.array(list("fedcba"))
    )
    data = load_data(str(path), samples="2:4", classes=5)
    assert (data.ids, data.positions, data.classes) == (("d", "c"), (2, 3), 5)
    assert (data.name, data.spec) == ("mine", str(path))
    assert torch.equal(data.images, (images * 255).to(torch.uint8)[2:4] / 255)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_test": np.zeros((2, 1, 4, 4))}, r"no array 'images' nor 'labels' \(it has x_test\)"),
        ({"images": np.zeros((2, 1, 4, 4))}, "no array 'labels'"),
        (
            {"images": np.zeros((2, 1, 4, 4)), "labels": np.array([0, 1]), "ids": np.array(["a", 3], object)},
            "array 'ids' .* no Python objects",
        ),
        ({"images": np.full((2, 1, 4, 4), 200.0), "labels": np.array([0, 1])}, "divide by 255"),
        ({"images": np.ones((2, 1, 4, 4), np.uint8), "labels": np.array([0, 1])}, "only 0 and 1"),
        ({"images": np.zeros((2, 8, 9, 3), np.uint8), "labels": np.array([0, 1])}, "transpose"),
        ({"images": np.zeros((2, 1, 4, 4)), "labels": np.array([0.0, 1])}, "labels are float64"),
        ({"images": np.zeros((2, 1, 4, 4)), "labels": np.array([0, 1, 1])}, "2 images and 3 labels"),
        ({"images": np.zeros((2, 16)), "labels": np.array([0, 1])}, r"shape \(2, 16\)"),
    ],
)
def test_an_npz_with_a_fault_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_data(str(tmp_path / "bad.npz"))


def test_a_file_that_is_no_npz_or_is_cut_off_is_refused(tmp_path):
    path = tmp_path / "bad.npz"
    images, labels = some(50, 3, 16, 16)
    np.savez_compressed(path, images=images.numpy(), labels=labels.numpy())
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    for content in (b"", b"images", whole[: len(whole) // 2], bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.npz.* cannot be read"):
            load_data(str(path))
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match="single array"):
        load_data(str(path))


def test_a_file_that_is_not_there_and_a_name_that_is_not_known_say_what_to_write(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        load_data(str(tmp_path / "none.npz"))
    with pytest.raises(LookupError, match=r"digit.*did you mean digits"):
        load_data("digit")
    with pytest.raises(LookupError, match="sub-folder"):
        load_data(str(tmp_path / "no_folder"))


def test_the_examples_data_are_the_first_two_hundred_digits_as_bytes():
    data = load_data(str(ROOT / "examples/own_model/data.npz"))
    digits = load_data("digits", samples="200")
    assert [one.removeprefix("uci-") for one in data.ids] == [one.removeprefix("digits/") for one in digits.ids]
    assert torch.equal(data.labels, digits.labels)
    assert torch.allclose(data.images, digits.images, rtol=0, atol=0.5 / 255 + 1e-6)
    assert data.images.max() == 1


def picture(path: Path, value, mode="L", size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def test_a_folder_takes_its_classes_in_turn_and_names_files_by_their_relative_path(tmp_path):
    for name, value in (("b/2.png", 51), ("b/1.png", 102), ("a/z.bmp", 153), ("a/deep/y.png", 204), ("a/zz.png", 255)):
        picture(tmp_path / name, value)
    (tmp_path / "a/readme.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    data = load_data(str(tmp_path))
    assert data.ids == ("a/deep/y.png", "b/1.png", "a/z.bmp", "b/2.png", "a/zz.png")
    assert data.labels.tolist() == [0, 1, 0, 1, 0]
    assert data.images.shape == (5, 1, 4, 6)
    assert torch.equal(data.images[:, 0, 0, 0], torch.tensor([204, 102, 153, 51, 255]) / 255)
    assert (data.classes, data.name, data.spec) == (2, tmp_path.name, str(tmp_path))


def test_a_folder_reads_only_the_selected_images(tmp_path):
    for name in ("a/1.png", "b/1.png", "a/2.png"):
        picture(tmp_path / name, 9)
    (tmp_path / "b/2.png").write_bytes(b"broken")
    data = load_data(str(tmp_path), samples="1:3", classes=4)
    assert (data.ids, data.positions, data.classes) == (("b/1.png", "a/2.png"), (1, 2), 4)
    with pytest.raises(ValueError, match=r"2\.png.* cannot be read"):
        load_data(str(tmp_path))
    with pytest.raises(ValueError, match="more than the 4 samples"):
        load_data(str(tmp_path), samples="5")
    with pytest.raises(ValueError, match="classes=1 is less than the 2"):
        load_data(str(tmp_path), classes=1)


def test_a_folder_of_colour_pictures_keeps_the_order_of_the_channels(tmp_path):
    picture(tmp_path / "a/1.png", (255, 102, 0), "RGB")
    picture(tmp_path / "b/1.png", (0, 0, 255), "RGB")
    data = load_data(str(tmp_path))
    assert torch.equal(data.images[:, :, 1, 1], torch.tensor([[255, 102, 0], [0, 0, 255]]) / 255)


@pytest.mark.parametrize(
    ("mode", "size", "message"),
    [
        ("L", (4, 6), "one size"),
        ("RGB", (6, 4), "one size and mode"),
        ("RGBA", (6, 4), "mode RGBA"),
        ("I;16", (6, 4), "convert it to L"),
    ],
)
def test_a_picture_of_another_size_or_mode_is_refused_with_its_file(tmp_path, mode, size, message):
    picture(tmp_path / "a/1.png", 0)
    picture(tmp_path / "b/odd.png", 0, mode, size)
    with pytest.raises(ValueError, match=rf"odd\.png.*{message}"):
        load_data(str(tmp_path))


def test_a_folder_without_classes_or_with_an_empty_one_is_refused(tmp_path):
    picture(tmp_path / "1.png", 0)
    with pytest.raises(ValueError, match="0 sub-folders"):
        load_data(str(tmp_path))
    picture(tmp_path / "a/1.png", 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty.* contains no image"):
        load_data(str(tmp_path))


# --- torch data sets and loaders ------------------------------------------------------------------------------------


class Dicts(Dataset):
    classes = ("cat", "dog", "cow", "pig")

    def __init__(self, read=None):
        self.images, self.labels = some(10, 3)
        self.read = [] if read is None else read

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.read.append(index)
        return {"image": self.images[index], "label": self.labels[index]}


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(*some(), strict=True)


class Augmented(Dicts):
    def __getitem__(self, index):
        return torch.rand(3, 5, 7), 0


def test_data_sets_and_loaders_give_the_same_data_as_their_arrays():
    images, labels = some(10, 3)
    expected = from_arrays(images, labels, classes=4)
    pairs = TensorDataset(images, labels)
    pictures = [
        (Image.fromarray((one.permute(1, 2, 0) * 255).to(torch.uint8).numpy()), int(k))
        for one, k in zip(images, labels, strict=True)
    ]
    for source in (pairs, DataLoader(pairs, batch_size=4), Dicts(), DataLoader(Dicts(), batch_size=3)):
        data = from_dataset(source, classes=4)
        assert torch.equal(data.images, expected.images)
        assert torch.equal(data.labels, expected.labels)
        assert data.ids == expected.ids
        assert data.classes == 4
    assert torch.equal(from_dataset(pictures).images, (images * 255).to(torch.uint8) / 255)
    assert len(from_dataset(Stream())) == len(from_dataset(DataLoader(Stream(), batch_size=None))) == 6


def test_a_limit_reads_no_more_than_it_says_and_the_data_set_names_its_classes():
    source = Dicts()
    data = from_dataset(source, limit=9)
    assert (len(data), data.classes) == (9, 4)
    assert 9 not in source.read
    assert len(from_dataset(DataLoader(Dicts(), batch_size=4), limit=5)) == 5
    with pytest.raises(ValueError, match="limit=0"):
        from_dataset(source, limit=0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: DataLoader(Dicts(), shuffle=True), "shuffle=False"),
        (
            lambda: DataLoader(
                Dicts(),
                batch_sampler=torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(range(10)), 2, False),
            ),
            "shuffle",
        ),
        (lambda: Augmented(), "sample 0 differs when it is read again"),
        (lambda: [(torch.rand(1, 4, 4), 0), (torch.rand(1, 4, 5), 1)], "sample 1 .* one size"),
        (lambda: [(torch.rand(1, 4, 4), 0.5)], "label of sample 0 is 0.5"),
        (lambda: [(torch.rand(1, 4, 4), "cat")], "label of sample 0 is 'cat'"),
        (lambda: [torch.rand(1, 4, 4)], "a sample is a Tensor"),
        (lambda: [{"picture": 1, "label": 0}], "keys .*label.*picture"),
        (list, "no samples"),
        (
            lambda: [(torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0)), 0)] * 3,
            "normalise inside the model",
        ),
    ],
)
def test_a_data_set_that_cannot_be_evaluated_again_or_is_malformed_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        from_dataset(source())


# --- functions of the user's ----------------------------------------------------------------------------------------

USERS = """
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

images, labels = torch.arange(12).view(12, 1, 1, 1).expand(12, 1, 2, 3) / 12, torch.arange(12) % 3

def pair(): return images, labels
def triple(): return images.numpy(), labels.numpy(), [f"n{i}" for i in range(12)]
def dataset(): return TensorDataset(images, labels)
def loader(): return DataLoader(TensorDataset(images, labels), batch_size=5)
def nothing(): return None
def short_stream():
    yield from zip(images[:7], labels[:7])
    raise OSError("read too far")
def fails(): raise RuntimeError("the disk is gone")
"""


@pytest.fixture
def users(tmp_path, monkeypatch):
    (tmp_path / "users_data_module.py").write_text(USERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("users_data_module", None)


@pytest.mark.parametrize("function", ["pair", "triple", "dataset", "loader"])
def test_a_function_of_a_module_gives_arrays_a_data_set_or_a_loader(users, function):
    data = load_data(f"users_data_module:{function}", samples="2:7", classes=4)
    assert torch.equal(data.images[:, 0, 0, 0], torch.arange(2, 7) / 12)
    assert data.labels.tolist() == [2, 0, 1, 2, 0]
    assert (data.positions, data.classes) == ((2, 3, 4, 5, 6), 4)
    assert data.ids == tuple(f"n{i}" if function == "triple" else str(i) for i in range(2, 7))
    assert (data.name, data.spec) == (f"users_data_module:{function}",) * 2


def test_no_more_of_a_stream_is_read_than_the_selection_needs(users):
    assert load_data("users_data_module:short_stream", samples="2:7").positions == (2, 3, 4, 5, 6)
    with pytest.raises(OSError, match="read too far"):
        load_data("users_data_module:short_stream", samples="2:8")


def test_a_function_of_a_file_is_found_by_the_files_path(users):
    spec = f"{users / 'users_data_module.py'}:pair"
    data = load_data(spec)
    assert (len(data), data.classes, data.name, data.spec) == (12, 3, "users_data_module:pair", spec)


def test_a_function_that_returns_nothing_is_refused_and_its_own_errors_are_passed_on(users):
    with pytest.raises(ValueError, match=r"nothing.* returned NoneType"):
        load_data("users_data_module:nothing")
    with pytest.raises(RuntimeError, match="the disk is gone"):
        load_data("users_data_module:fails")
    with pytest.raises(ValueError, match="more than the 12 samples"):
        load_data("users_data_module:dataset", samples="13")


# --- selection ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thousand():
    images = torch.arange(1000).view(1000, 1, 1, 1) / 1000
    return from_arrays(images, torch.arange(1000) % 10, ids=[f"s{i:03d}" for i in range(1000)])


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (None, range(1000)),
        ("500", range(500)),
        (3, range(3)),
        ("0:500", range(500)),
        (" 20 : 30 ", range(20, 30)),
        (":7", range(7)),
        ("990:", range(990, 1000)),
        ("1000", range(1000)),
    ],
)
def test_a_number_or_a_slice_selects_and_positions_are_kept(thousand, samples, expected):
    data = select(thousand, samples)
    assert data.positions == tuple(expected)
    assert data.ids == tuple(f"s{i:03d}" for i in expected)
    assert torch.equal(data.images.flatten(), torch.tensor(list(expected)) / 1000)
    assert data.labels.tolist() == [i % 10 for i in expected]
    assert data.classes == 10


def test_a_stratified_selection_takes_the_first_of_each_class_in_the_order_of_the_data(thousand):
    assert select(thousand, "stratified:30").positions == tuple(range(30))
    labels = torch.tensor([2, 2, 0, 2, 1, 1, 0, 0, 1])
    data = from_arrays(torch.zeros(9, 1, 2, 2), labels)
    assert select(data, "stratified:6").positions == (0, 1, 2, 4, 5, 6)
    assert select(data, " stratified: 3 ").labels.tolist() == [2, 0, 1]


def test_a_selection_of_a_selection_keeps_the_places_in_the_full_set(thousand):
    assert select(select(thousand, "100:200"), "5:7").positions == (105, 106)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ("1001", "asks for more than the 1000 samples"),
        ("900:1001", "asks for more"),
        ("1000:", "asks for more"),
        ("0", "is empty"),
        ("stratified:1001", "write stratified:1000 or stratified:1010"),
        ("stratified:7", "write stratified:10$"),
        ("stratified:1010", "class 0 has 100: write at most stratified:1000"),
        ("stratified:0", "not understood"),
        ("stratified:x", "not understood"),
        ("7:7", "is empty"),
        ("9:7", "is empty"),
        ("-5", "negative"),
        (-5, "negative"),
        ("-5:", "negative"),
        ("3:-1", "negative"),
        ("0:100:2", "a step"),
        ("1.5", "neither a number, a slice nor a readable file"),
        ("", "neither a number"),
        ("no_such_file.txt", "neither a number"),
    ],
)
def test_a_selection_that_is_empty_negative_too_large_or_meaningless_is_refused(thousand, samples, message):
    with pytest.raises(ValueError, match=message):
        select(thousand, samples)


def test_a_file_of_ids_keeps_its_order_and_may_hold_comments(thousand, tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("# hard ones\ns007\n\n  s003  # a three\r\ns900\n")
    data = select(thousand, str(path))
    assert data.ids == ("s007", "s003", "s900")
    assert data.positions == (7, 3, 900)
    assert data.labels.tolist() == [7, 3, 0]


def test_an_id_with_a_hash_is_no_comment(tmp_path):
    data = from_arrays(*some(3), ids=["#1/a.png", "b #2.png", "c"])
    path = tmp_path / "ids.txt"
    path.write_text("b #2.png\n#1/a.png\n# c\n")
    assert select(data, str(path)).positions == (1, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("s001\ns1O2\n", r"ids\.txt:2: no sample has the id 's1O2'; did you mean s"),
        ("qqqqqqqq\n", "ids look like 's000'"),
        ("s001\n\ns001\n", r"ids\.txt:3: id 's001' is already in line 1"),
        ("# nothing\n\n", "has no ids"),
        (b"\xff\xfe\x00", "nor a readable file"),
    ],
)
def test_a_file_of_ids_with_a_fault_is_refused_with_its_line(thousand, tmp_path, content, message):
    path = tmp_path / "ids.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        select(thousand, str(path))


# --- blocks ---------------------------------------------------------------------------------------------------------


def test_blocks_lie_on_a_fixed_grid_over_the_full_set(thousand):
    data = select(thousand, "250:420")
    assert [[data.positions[i] for i in block] for block in blocks(data)] == [
        list(range(250, 300)),
        list(range(300, 400)),
        list(range(400, 420)),
    ]


def test_blocks_come_in_order_of_first_appearance_and_hold_every_sample_once(thousand, tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("s950\ns101\ns003\ns901\ns150\n")
    assert blocks(select(thousand, str(path))) == [[0, 3], [1, 4], [2]]
    assert sorted(i for block in blocks(thousand) for i in block) == list(range(1000))
    assert {len(block) for block in blocks(thousand)} == {BLOCK}


def test_a_larger_selection_finds_the_digests_of_the_smaller_one_again(thousand):
    few, many = select(thousand, "500"), select(thousand, "900")
    small = [block_digest(few, block) for block in blocks(few)]
    large = [block_digest(many, block) for block in blocks(many)]
    assert large[:5] == small
    assert len(set(large)) == 9


def test_a_digest_changes_with_a_pixel_a_label_an_id_the_order_the_shape_and_the_type():
    images, labels = some(4, 1, 6, 6)
    base = from_arrays(images, labels, ids=["ab", "c", "d", "e"])
    pixel, label = images.clone(), labels.clone()
    pixel[2, 0, 0, 0] = torch.nextafter(pixel[2, 0, 0, 0], torch.tensor(0.0))
    label[1] = 2
    others = [
        from_arrays(pixel, labels, ids=base.ids),
        from_arrays(images, label, ids=base.ids),
        from_arrays(images, labels, ids=["a", "bc", "d", "e"]),
        from_arrays(images.view(4, 1, 4, 9), labels, ids=base.ids),
        from_arrays(images.double(), labels, ids=base.ids),
    ]
    order = [0, 1, 2, 3]
    digests = [block_digest(one, order) for one in (base, *others)]
    digests += [block_digest(base, [1, 0, 2, 3]), block_digest(base, [0, 1, 2])]
    assert len(set(digests)) == len(digests)
    assert block_digest(from_arrays(images.numpy(), labels.numpy(), ids=base.ids), range(4)) == digests[0]


def test_a_blocks_digest_is_the_same_on_every_machine_and_in_every_version():
    data = from_arrays(torch.tensor([0.0, 0.25, 0.5, 1.0]).view(2, 1, 1, 2), [1, 0], ids=["a", "b"])
    assert block_digest(data, [0, 1]) == "24759797c058f1c134d76eeb450266168c00243e0f6d6a9f9edd75436d9dab72"
