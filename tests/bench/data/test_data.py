"""Evaluation data by name and from files: the digits, archives and folders."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from builders import ROOT
from datafiles import picture, random_data
from gauntlet.bench.data.catalog import DATA
from gauntlet.bench.data.load_data import load_data


def sha256(data):
    digest = hashlib.sha256(data.images.numpy().tobytes())
    digest.update(data.labels.numpy().tobytes())
    digest.update("\n".join(data.ids).encode())
    return digest.hexdigest()


# digits


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


@pytest.mark.parametrize(
    ("name", "digits", "rounds", "digest"),
    [
        ("pairs", "digits", 1, "881da971c72bb006ca2adfab227eeba2319234d066c6441ef66d4af933666d53"),
        ("pairs-train", "digits-train", 5, "231e3a75ce2b467d9a4601f64773411afc003b8117fd48eb6f1407a45bf532df"),
    ],
)
def test_pairs_show_two_digits_of_their_own_part_and_never_change(name, digits, rounds, digest):
    data, single = load_data(name), load_data(digits)
    assert data.images.shape == (rounds * len(single), 1, 8, 16)
    assert data.classes == 100
    assert sha256(data) == digest
    rows = {one.removeprefix("digits/"): row for row, one in enumerate(single.ids)}
    sides = [[rows[number] for number in one.removeprefix("pairs/").split("-")] for one in data.ids]
    left, right = torch.tensor(sides).T
    assert torch.equal(data.images[:, :, :, :8], single.images[left])
    assert torch.equal(data.images[:, :, :, 8:], single.images[right])
    assert torch.equal(data.labels, 10 * single.labels[left] + single.labels[right])
    # Every digit is as often on either side.
    for side in (left, right):
        assert (side.bincount() == rounds).all()
    assert set(data.labels.tolist()) == set(range(100))


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
    for name in ("digits", "digits-train", "pairs", "pairs-train"):
        entry = DATA.get(name)
        data = entry.load()
        assert entry.card.name == data.name == name
        assert entry.card.classes == data.classes
        assert entry.card.shape == tuple(data.images.shape[1:])
        assert entry.card.licence
        assert entry.card.source


# files


def test_an_npz_gives_its_images_labels_and_ids(tmp_path):
    images, labels = random_data()
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
    images, labels = random_data(50, 3, 16, 16)
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
