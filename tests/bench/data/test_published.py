"""Published data sets: how they are named, where they are found, their parts, and when two sets are the same."""

import hashlib
import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from datafiles import noise
from gauntlet.bench.data import robustbench_subsets as subsets
from gauntlet.bench.data.catalog import DATA
from gauntlet.bench.data.data_name import data_title
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.data.samples.identity import compare_identities, data_identity
from gauntlet.bench.data.samples.in_memory import from_arrays

NAMES = ("cifar10", "cifar100", "fashion-mnist", "imagenet", "mnist", "svhn", "tiny-imagenet")


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    """No folder of this machine, and nothing from Hugging Face, decides what a test finds."""
    monkeypatch.delenv("GAUNTLET_DATA", raising=False)
    monkeypatch.setattr("gauntlet.bench.data.published_sets.read_hub", unreachable)


def unreachable(*_):
    from gauntlet.bench.data.hugging_face import HubError

    raise HubError("there is no network in this test")


def mnist(folder, count=6, seed=0):
    folder.mkdir(parents=True)
    for name, values in (("images-idx3", noise((count, 28, 28), seed)), ("labels-idx1", np.arange(count) % 10)):
        head = b"\0\0\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
        (folder / f"t10k-{name}-ubyte").write_bytes(head + values.astype(np.uint8).tobytes())
    return torch.from_numpy(noise((count, 28, 28), seed)[:, None]) / 255


def npz(path, count=30, shape=(3, 32, 32), classes=10, seed=0):
    np.savez(path, images=noise((count, *shape), seed), labels=np.arange(count) % classes)
    return path


def parquet(path, pixels, labels, names=None):
    def encoded(one):
        out = io.BytesIO()
        Image.fromarray(one).save(out, "PNG")
        return out.getvalue()

    rows = [{"bytes": encoded(one), "path": None if names is None else names[i]} for i, one in enumerate(pixels)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"img": pa.array(rows, kind), "label": pa.array(labels)}), path)


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "title"),
    [
        ("digits", "digits"),
        ("cifar10", "cifar10"),
        ("cifar10@/data/somewhere (1)/x=2", "cifar10"),
        ("cifar10/robustbench-1000@~/data", "cifar10/robustbench-1000"),
        ("cifar10(split=train)", "cifar10(split=train)"),
        ("cifar10(split=test)", "cifar10"),
        ("mnist(resize=32, mode=RGB)", "mnist(mode=RGB, resize=32, interpolation=bilinear)"),
        ("imagenet", "imagenet(resize=256, crop=224, interpolation=bilinear)"),
        (
            "imagenet/robustbench-5000(interpolation=bicubic)@/x",
            "imagenet/robustbench-5000(resize=256, crop=224, interpolation=bicubic)",
        ),
        ("imagenet(crop=288, resize=None)", "imagenet(crop=288)"),
        ("imagenet(resize='224x224', crop=None)", "imagenet(resize=224x224, interpolation=bilinear)"),
        ("tiny-imagenet", "tiny-imagenet"),
        ("some/folder/mine.npz", "mine.npz"),
        ("some/photos(resize=64, crop=56)", "photos(resize=64, crop=56, interpolation=bilinear)"),
        ("package.module:function", "package.module:function"),
        ("path/to/file.py:function", "path/to/file.py:function"),
    ],
)
def test_tables_call_data_by_name_part_and_preprocessing_never_by_its_folder(spec, title):
    assert data_title(spec) == title


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cifar10(size=3)", "no setting 'size': its settings are split, mode, resize, crop, interpolation"),
        ("cifar10(split=validation)", "split='validation' .* use one of test, train"),
        ("cifar10(resize=big)", "resize='big' must be"),
        ("cifar10(resize=3", "not understood"),
        ("cifar10/robustbench", "no part 'robustbench': its parts are cifar10/robustbench-N"),
        ("mnist/robustbench-10", "no part 'robustbench-10': its parts are none"),
        ("cifar10/robustbench-10(split=train)", "is a part of the test split"),
        ("digits@/data", "needs no files"),
        ("digits(resize=16)", "no setting 'resize': its settings are none"),
    ],
)
def test_a_name_with_what_its_set_does_not_have_is_refused_with_the_way_out(spec, message):
    for use in (data_title, load_data):
        with pytest.raises(ValueError, match=message):
            use(spec)


def test_a_folder_called_like_a_set_is_taken_where_the_set_has_no_such_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cifar10/mine/a/1.png", "cifar10/mine/b/1.png"):
        Path(name).parent.mkdir(parents=True)
        Image.fromarray(noise((4, 4))).save(name)
    assert load_data("cifar10/mine").ids == ("a/1.png", "b/1.png")
    assert data_title("cifar10/mine") == "mine"
    with pytest.raises(ValueError, match="folder 'cifar10' has 1 sub-folders"):
        load_data("./cifar10")


def test_functions_of_modules_called_like_a_set_are_still_found(tmp_path, monkeypatch):
    (tmp_path / "mnist.py").write_text("import torch\ndef mine(): return torch.zeros(4, 1, 2, 2), torch.arange(4)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert len(load_data("mnist:mine")) == 4
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "mnist.py").rename(tmp_path / "cifar10/own.py")
    assert len(load_data("cifar10/own.py:mine")) == 4
    assert data_title("cifar10/own.py:mine") == "cifar10/own.py:mine"


# --- where sets are found -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["MNIST/raw", "mnist/MNIST/raw", "mnist/raw", "mnist", "MNIST"], ids=lambda one: one.replace("/", "-")
)
def test_a_set_is_found_below_a_folder_of_the_variable(tmp_path, monkeypatch, place):
    images = mnist(tmp_path / "second" / place)
    (tmp_path / "first").mkdir()
    monkeypatch.setenv("GAUNTLET_DATA", os.pathsep.join([str(tmp_path / "first"), str(tmp_path / "second")]))
    assert torch.equal(load_data("mnist").images, images)


def test_files_that_two_sets_have_in_common_are_taken_only_for_the_set_that_is_named(tmp_path, monkeypatch):
    images = mnist(tmp_path / "MNIST/raw")
    mnist(tmp_path / "FashionMNIST/raw", seed=1)
    monkeypatch.setenv("GAUNTLET_DATA", str(tmp_path))
    assert torch.equal(load_data("mnist").images, images)
    assert not torch.equal(load_data("fashion-mnist").images, images)
    monkeypatch.setenv("GAUNTLET_DATA", str(tmp_path / "FashionMNIST/raw"))
    with pytest.raises(LookupError, match=r"'mnist' is not in .*raw"):
        load_data("mnist")


def test_the_folder_that_is_named_wins_and_is_the_only_one(tmp_path, monkeypatch):
    mnist(tmp_path / "a/MNIST/raw")
    images = mnist(tmp_path / "b/MNIST/raw", seed=1)
    monkeypatch.setenv("GAUNTLET_DATA", str(tmp_path / "a"))
    assert torch.equal(load_data(f"mnist@{tmp_path / 'b'}").images, images)
    (tmp_path / "c").mkdir()
    with pytest.raises(LookupError, match=r"c' has none of its files; searched for MNIST/raw/t10k-images-idx3-ubyte"):
        load_data(f"mnist@{tmp_path / 'c'}")
    with pytest.raises(ValueError, match=r"d' does not exist"):
        load_data(f"mnist@{tmp_path / 'd'}")
    monkeypatch.setenv("GAUNTLET_DATA", str(tmp_path / "d"))
    with pytest.raises(ValueError, match=r"GAUNTLET_DATA names '.*d', which is not a folder"):
        load_data("mnist")


@pytest.mark.parametrize("name", NAMES)
def test_a_set_that_is_nowhere_says_where_it_was_looked_for_and_what_to_do(tmp_path, monkeypatch, name):
    with pytest.raises(LookupError, match=r"GAUNTLET_DATA is not set.*no network in this test"):
        load_data(name)
    monkeypatch.setenv("GAUNTLET_DATA", str(tmp_path))
    with pytest.raises(LookupError) as error:
        load_data(name)
    for told in (str(tmp_path), f"{name}@FOLDER", "GAUNTLET_DATA", "robust-gauntlet[huggingface]", "searched for"):
        assert told in str(error.value)


def test_every_set_has_a_card_that_says_what_it_is():
    for name in NAMES:
        card = DATA.get(name).card
        assert card.name == name
        assert card.source
        assert card.licence
        assert card.summary


@pytest.mark.parametrize(
    ("name", "classes", "shape"),
    [
        ("cifar10", 10, (3, 32, 32)),
        ("cifar100", 100, (3, 32, 32)),
        ("svhn", 10, (3, 32, 32)),
        ("mnist", 10, (1, 28, 28)),
    ],
)
def test_any_set_is_read_from_parquet_files_and_archives_of_numpy_too(tmp_path, monkeypatch, name, classes, shape):
    pixels, labels = noise((12, *shape)), np.arange(12) % classes
    np.savez(tmp_path / "x.npz", images=pixels, labels=labels)
    encoded = pixels.transpose(0, 2, 3, 1) if shape[0] == 3 else pixels[:, 0]
    parquet(tmp_path / name / "plain_text/test-00000-of-00001.parquet", encoded, labels)
    monkeypatch.setenv("GAUNTLET_DATA", str(tmp_path))
    found = [load_data(spec) for spec in (name, f"{name}@{tmp_path / name}", f"{name}@{tmp_path / 'x.npz'}")]
    for data in found:
        assert torch.equal(data.images, torch.from_numpy(pixels) / 255)
        assert (data.classes, data.ids[3], data.name) == (classes, f"{name}/00003", name)
    assert len({data_identity(data) for data in found}) == 1


def test_files_of_another_set_are_noticed_by_the_shape_of_their_images(tmp_path):
    npz(tmp_path / "x.npz", shape=(1, 28, 28))
    with pytest.raises(ValueError, match=r"has images of shape \(3, 32, 32\), but .* have \(1, 28, 28\)"):
        load_data(f"cifar10@{tmp_path / 'x.npz'}")
    assert load_data(f"cifar10(mode=RGB, resize=32)@{tmp_path / 'x.npz'}").images.shape == (30, 3, 32, 32)


def test_imagenet_from_parquet_has_the_names_and_the_order_of_the_folders(tmp_path):
    side = (230, 260)
    parts = [("n01440764", 0, 5), ("n01443537", 1, 2), ("n01440764", 0, 1), ("n01440764", 0, 9)]
    pixels = [noise((*side, 3), number) for _, _, number in parts]
    names = [f"ILSVRC2012_val_{number:08d}_{wnid}.JPEG" for wnid, _, number in parts]
    parquet(tmp_path / "p/data/validation-00000-of-00001.parquet", pixels, [label for _, label, _ in parts], names)
    parquet(tmp_path / "p/data/test-00000-of-00001.parquet", pixels, [-1] * 4, names)
    for wnid in ("n01440764", "n01443537", *(f"n1{number:07d}" for number in range(998))):
        (tmp_path / f"f/val/{wnid}").mkdir(parents=True)
    for (wnid, _, number), one in zip(parts, pixels, strict=True):
        Image.fromarray(one).save(tmp_path / f"f/val/{wnid}/ILSVRC2012_val_{number:08d}.JPEG", "PNG")
    data = load_data(f"imagenet@{tmp_path / 'p'}")
    assert data.ids == (
        "n01440764/ILSVRC2012_val_00000001.JPEG",
        "n01443537/ILSVRC2012_val_00000002.JPEG",
        "n01440764/ILSVRC2012_val_00000005.JPEG",
        "n01440764/ILSVRC2012_val_00000009.JPEG",
    )
    assert data_identity(data) == data_identity(load_data(f"imagenet@{tmp_path / 'f'}"))


# --- parts, and whether figures may be compared ---------------------------------------------------------------------


def test_robustbenchs_part_of_cifar_is_the_first_images_in_the_order_of_the_files(tmp_path):
    root = npz(tmp_path / "x.npz")
    part, full = load_data(f"cifar10/robustbench-12@{root}"), load_data(f"cifar10@{root}")
    assert (part.ids, part.positions) == (full.ids[:12], full.positions[:12])
    assert torch.equal(part.images, full.images[:12])
    assert part.name == "cifar10/robustbench-12"
    assert load_data(f"cifar10/robustbench-12@{root}", samples="3:5").positions == (3, 4)
    for count in ("0", "31"):
        with pytest.raises(ValueError, match=rf"no part 'robustbench-{count}': RobustBench evaluates 1 to 30"):
            load_data(f"cifar10/robustbench-{count}@{root}")


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """A folder of ImageNet's form with nine images, and a list in which six of them stand."""
    wnids = [f"n{number:08d}" for number in range(1000)]
    for wnid in wnids:
        (tmp_path / f"val/{wnid}").mkdir(parents=True)
    names = [f"{wnids[number % 3]}/ILSVRC2012_val_{number:08d}.JPEG" for number in range(9)]
    for number, name in enumerate(names):
        Image.fromarray(noise((224, 224, 3), number)).save(tmp_path / "val" / name, "PNG")
    chosen = [names[number] for number in (8, 0, 4, 5, 2, 1)]
    (tmp_path / subsets.LIST).write_text("\n".join(chosen))
    monkeypatch.setattr(subsets, "LIST_SHA256", hashlib.sha256("\n".join(chosen).encode()).hexdigest())
    return tmp_path, chosen


def test_robustbenchs_part_of_imagenet_is_its_list_in_its_order_and_a_set_of_its_own(listed, monkeypatch):
    root, chosen = listed
    data = load_data(f"imagenet/robustbench-5@{root}")
    assert list(data.ids) == chosen[:5]
    assert data.positions == (0, 1, 2, 3, 4)
    full = load_data(f"imagenet@{root}")
    assert torch.equal(data.images, full.images[[full.ids.index(one) for one in chosen[:5]]])
    assert data.labels.tolist() == [int(one[1:9]) for one in chosen[:5]]
    (root / subsets.LIST).rename(root / "val" / subsets.LIST)
    with pytest.raises(
        ValueError, match=r"is missing \(searched for imagenet_test_image_ids\.txt in .*--no-deps robustbench"
    ):
        load_data(f"imagenet/robustbench-5@{root}")
    monkeypatch.setenv("GAUNTLET_DATA", str(root / "val"))
    assert list(load_data(f"imagenet/robustbench-5@{root}").ids) == chosen[:5]


def test_the_list_is_found_in_robustbenchs_package_without_importing_it(listed, tmp_path, monkeypatch):
    root, chosen = listed
    package = tmp_path / "site/robustbench/helper_files"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("raise ImportError('needs torchvision')")
    (root / subsets.LIST).rename(package / subsets.LIST)
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert list(load_data(f"imagenet/robustbench-3@{root}").ids) == chosen[:3]


def test_another_list_and_samples_that_are_not_there_are_refused(listed):
    root, chosen = listed
    (root / "val" / chosen[1]).unlink()
    with pytest.raises(
        ValueError, match=rf"1 of the first 3 samples .* is '{chosen[1]}'|1 of the 3 samples .*'{chosen[1]}'"
    ):
        load_data(f"imagenet/robustbench-3@{root}")
    assert len(load_data(f"imagenet/robustbench-1@{root}")) == 1
    with pytest.raises(ValueError, match="RobustBench evaluates 1 to 6"):
        load_data(f"imagenet/robustbench-7@{root}")
    (root / subsets.LIST).write_text("\n".join(reversed(chosen)))
    with pytest.raises(ValueError, match=r"is not RobustBench's list of 5,000 samples .* --samples "):
        load_data(f"imagenet/robustbench-3@{root}")


def test_two_sets_are_comparable_only_with_the_same_samples_and_pixels(tmp_path):
    pixels = noise((250, 3, 8, 8))
    labels, ids = np.arange(250) % 5, [f"s{number}" for number in range(250)]
    whole = from_arrays(pixels, labels, ids=ids)
    np.savez(tmp_path / "x.npz", images=pixels, labels=labels, ids=np.array(ids))
    again = load_data(str(tmp_path / "x.npz"))
    other = load_data(f"{tmp_path / 'x.npz'}(resize=9)")
    fewer = load_data(str(tmp_path / "x.npz"), samples=200)
    mine = data_identity(whole)
    assert (
        compare_identities(mine, data_identity(again))
        == "The same 250 samples, pixel by pixel: figures are comparable."
    )
    assert "other pixels (preprocessing, files): figures are not comparable" in compare_identities(
        mine, data_identity(other)
    )
    assert compare_identities(mine, data_identity(fewer)) == "Other samples (250 and 200): figures are not comparable."
    changed = labels.copy()
    changed[3] = 0
    assert "Other samples" in compare_identities(mine, data_identity(from_arrays(pixels, changed, ids=ids)))


# --- Hugging Face ---------------------------------------------------------------------------------------------------

HUB = """
import json, sys
import gauntlet
from gauntlet.bench.data.samples.identity import data_identity
for spec in json.loads(sys.argv[1]):
    try:
        data = gauntlet.load_data(spec)
    except LookupError as error:
        print(json.dumps(str(error)))
    else:
        print(json.dumps([data_identity(data).pixels, data.ids[:2], data.classes]))
"""


def from_hub(home, *specs):
    """What `load_data` says in a process of its own, whose caches of Hugging Face lie in `home`, without a network."""
    there = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    there.pop("GAUNTLET_DATA", None)
    for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        there.pop(name, None)
    command = [sys.executable, "-c", HUB, json.dumps(specs)]
    done = subprocess.run(command, env=there, capture_output=True, text=True, check=True, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()]


def datasets_cache(home, pixels, labels):
    """What `datasets.load_dataset("uoft-cs/cifar10")` leaves behind, written by its own classes."""
    from datasets import ClassLabel, DatasetInfo, Features, SplitDict, SplitInfo
    from datasets import Image as Picture
    from datasets.arrow_writer import ArrowWriter

    folder = home / "datasets/uoft-cs___cifar10/plain_text/0.0.0/0123456789abcdef0123456789abcdef01234567"
    folder.mkdir(parents=True)
    features = Features({"img": Picture(), "label": ClassLabel(num_classes=10)})
    writer = ArrowWriter(path=str(folder / "cifar10-test.arrow"), features=features)
    for one, label in zip(pixels, labels, strict=True):
        out = io.BytesIO()
        Image.fromarray(one).save(out, "PNG")
        writer.write({"img": {"bytes": out.getvalue(), "path": None}, "label": int(label)})
    count, size = writer.finalize()
    writer.stream.close()
    split = SplitInfo("test", num_bytes=size, num_examples=count, dataset_name="cifar10")
    DatasetInfo(
        features=features,
        dataset_name="cifar10",
        config_name="plain_text",
        version="0.0.0",
        splits=SplitDict({"test": split}),
    ).write_to_directory(str(folder))


def test_what_hugging_face_has_cached_is_found_without_a_network_and_is_the_same_data(tmp_path):
    pytest.importorskip("datasets")
    pixels, labels = noise((14, 32, 32, 3)), np.arange(14) % 10
    np.savez(tmp_path / "x.npz", images=pixels.transpose(0, 3, 1, 2), labels=labels)
    expected = data_identity(load_data(f"cifar10@{tmp_path / 'x.npz'}")).pixels
    home = tmp_path / "home"
    datasets_cache(home, pixels, labels)
    hub = home / "hub/datasets--uoft-cs--cifar100"
    commit = "89abcdef0123456789abcdef0123456789abcdef"
    parquet(hub / f"snapshots/{commit}/cifar100/test-00000-of-00001.parquet", pixels, labels)
    (hub / "refs").mkdir()
    (hub / "refs/main").write_text(commit)
    first, second, missing, partly = from_hub(home, "cifar10", "cifar100", "svhn", "cifar10(split=train)")
    assert first == [expected, ["cifar10/00000", "cifar10/00001"], 10]
    assert second[1:] == [["cifar100/00000", "cifar100/00001"], 100]
    assert (
        "cropped_digits/test-*.parquet of https://huggingface.co/datasets/ufldl-stanford/svhn is not cached" in missing
    )
    assert "plain_text/train-*.parquet" in partly
