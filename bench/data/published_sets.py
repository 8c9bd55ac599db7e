"""The published data sets, and how they are opened. Listing them imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gauntlet.attacks.ops.validators import one_of
from gauntlet.bench.data.hugging_face import EXTRA, HubDataset, HubError, read_hub
from gauntlet.bench.data.robustbench_subsets import PARTS, robustbench_first, robustbench_listed
from gauntlet.bench.data.samples.card import DataCard, DataEntry, Subset
from gauntlet.bench.data.samples.preprocessing import PLAIN, SETTINGS, Preprocessing, with_settings

if TYPE_CHECKING:
    from gauntlet.bench.data.formats.raw_data import RawData
    from gauntlet.bench.data.samples.dataset import Data

_SPLITS = ("test", "train")
_HUB_NAME = re.compile(r"(?P<stem>ILSVRC2012_val_\d{8}|n\d{8}_\d+)_(?P<wnid>n\d{8})(?P<suffix>\.\w+)")


@dataclass(frozen=True)
class PublishedSet:
    """A data set that others distribute."""

    card: DataCard
    layout: str
    """Layout of its files, one of `formats.catalog.LAYOUTS`."""
    folders: tuple[str, ...]
    """Names that its folder may have."""
    files: str
    """Its files, for the error message if there are none."""
    hub: HubDataset
    preprocessing: Preprocessing = PLAIN


def open_published(published: PublishedSet, *, split: str = "test", root: Path | None = None, **settings: Any) -> Data:
    """Open a split of a published set: from `root`, from a folder of GAUNTLET_DATA, or from Hugging Face, in this order.

    `settings`: see `preprocessing.Preprocessing`. Images are read when they are indexed. Raises LookupError if the set is
    nowhere, and ValueError for wrong settings and files.
    """
    from gauntlet.bench.data.formats.raw_data import to_data

    preprocessing = _preprocessing(published, {"split": split, **settings})
    raw = _read(published, split, root, preprocessing)
    if published.layout == "imagenet":
        raw = _in_turn(raw)
    name = published.card.name if split == "test" else f"{published.card.name}-{split}"
    shape = tuple(raw.images.shape[1:])
    if preprocessing == published.preprocessing and shape != published.card.shape:
        raise ValueError(
            f"data {published.card.name!r} has images of shape {published.card.shape}, but the files have {shape}: they are of "
            "another set"
        )
    description = describe_settings(published, {"split": split, **settings})
    title = published.card.name + (f"({description})" if description else "")
    ids = raw.names or tuple(f"{name}/{index:05d}" for index in range(len(raw.labels)))
    return to_data(raw, name=title, spec=title, classes=published.card.classes, ids=ids)


def describe_settings(published: PublishedSet, settings: Mapping[str, Any]) -> str:
    """The settings that determine the images, for tables: the split unless it is the test split, and the preprocessing."""
    own = _preprocessing(published, settings)
    # The mode is shown only where it is not the set's own.
    shown = replace(own, mode=None) if own.mode == published.preprocessing.mode else own
    split = settings.get("split", "test")
    return ", ".join(filter(None, [f"split={split}" if split != "test" else "", str(shown)]))


def _preprocessing(published: PublishedSet, settings: Mapping[str, Any]) -> Preprocessing:
    split = settings.get("split", "test")
    one_of("split", split, _SPLITS)
    return with_settings(published.preprocessing, {key: value for key, value in settings.items() if key != "split"})


def _read(published: PublishedSet, split: str, root: Path | None, preprocessing: Preprocessing) -> RawData:
    from gauntlet.bench.data.data_folders import VARIABLE, search_places
    from gauntlet.bench.data.formats.catalog import find_reader

    name = published.card.name
    searched = search_places(published.folders, root)
    for place in searched:
        if (reader := find_reader(published.layout, name, split, place, published.card.classes)) is not None:
            return reader(preprocessing)
    where = ", ".join(repr(str(place.path)) for place in searched)
    files = f"{published.files} ({split} split)"
    if root is not None:
        raise LookupError(f"data {name!r}: {where} has none of its files; searched for {files}")
    try:
        return read_hub(published.hub, split, preprocessing)
    except HubError as error:
        local = f"not in {where} (searched for {files})" if where else f"not on disk ({VARIABLE} is not set)"
        raise LookupError(
            f"data {name!r} is {local} and cannot be loaded from Hugging Face: {error}. Write {name}@FOLDER with the folder of "
            f"its files, set {VARIABLE} to the folder above it, or install the download ({EXTRA}) and connect to the network"
        ) from error


def _in_turn(raw: RawData) -> RawData:
    """ImageNet with the names and the order of its folders, whatever its source: classes in turn."""
    from itertools import zip_longest

    from gauntlet.bench.data.formats.raw_data import RawData

    if raw.names is None:
        return raw
    names = [_HUB_NAME.sub(r"\g<wnid>/\g<stem>\g<suffix>", name) for name in raw.names]
    classes: dict[int, list[int]] = {}
    for index in sorted(range(len(names)), key=names.__getitem__):
        classes.setdefault(int(raw.labels[index]), []).append(index)
    turns = zip_longest(*(classes[label] for label in sorted(classes)))
    order = [index for turn in turns for index in turn if index is not None]
    return RawData(
        raw.images.take(order), raw.labels[order], tuple(names[index] for index in order), raw.classes, raw.class_names
    )


def _entry(published: PublishedSet, subset: Subset | None = None) -> DataEntry:
    return DataEntry(
        published.card,
        partial(open_published, published),
        settings=("split", *SETTINGS),
        local=True,
        describe=partial(describe_settings, published),
        subset=subset,
        subsets=PARTS if subset else (),
    )


def _cifar(name: str, classes: int, files: str, config: str) -> DataEntry:
    card = DataCard(
        name=name,
        summary=f"10,000 photos of {classes} classes, 32×32 RGB; split=train: 50,000",
        source="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        licence="none stated",
        classes=classes,
        shape=(3, 32, 32),
    )
    folders = (name, name.upper(), name.upper().replace("CIFAR", "CIFAR-"))
    return _entry(
        PublishedSet(card, "cifar", folders, files, HubDataset(f"uoft-cs/{name}", config, config)), robustbench_first
    )


def _digits(name: str, summary: str, source: str, licence: str, folder: str, hub: HubDataset) -> DataEntry:
    card = DataCard(name, summary, source, licence, classes=10, shape=(1, 28, 28))
    files = f"{folder}/raw/t10k-images-idx3-ubyte and the like, plain or .gz, *.parquet"
    return _entry(PublishedSet(card, "idx", (name, folder, name.replace("-", "_")), files, hub))


CIFAR10 = _cifar("cifar10", 10, "cifar-10-batches-py/, cifar-10-python.tar.gz, *.parquet", "plain_text")
CIFAR100 = _cifar("cifar100", 100, "cifar-100-python/, cifar-100-python.tar.gz, *.parquet", "cifar100")
MNIST = _digits(
    "mnist",
    "10,000 handwritten digits, 28×28 grey; split=train: 60,000",
    "LeCun, Bottou, Bengio, Haffner, Gradient-Based Learning Applied to Document Recognition, 1998",
    "CC BY-SA 3.0",
    "MNIST",
    HubDataset("ylecun/mnist", "mnist", "mnist"),
)
FASHION = _digits(
    "fashion-mnist",
    "10,000 photos of clothes, 28×28 grey; split=train: 60,000",
    "Xiao, Rasul, Vollgraf, Fashion-MNIST, arXiv 1708.07747",
    "MIT",
    "FashionMNIST",
    HubDataset("zalando-datasets/fashion_mnist", "fashion_mnist", "fashion_mnist"),
)
SVHN = _entry(
    PublishedSet(
        DataCard(
            name="svhn",
            summary="26,032 house-number digits, 32×32 RGB; split=train: 73,257",
            source="Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning, 2011",
            licence="for non-commercial use",
            classes=10,
            shape=(3, 32, 32),
        ),
        layout="svhn",
        folders=("svhn", "SVHN"),
        files="test_32x32.mat or train_32x32.mat, *.parquet",
        hub=HubDataset("ufldl-stanford/svhn", "cropped_digits", "cropped_digits"),
    )
)
_IMAGENET = Preprocessing("RGB", 256, 224, "bilinear")
IMAGENET = _entry(
    PublishedSet(
        DataCard(
            name="imagenet",
            summary="ImageNet's 50,000 validation images of 1,000 classes, RGB, cut to 224×224",
            source="Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, arXiv 1409.0575",
            licence="for non-commercial research",
            classes=1000,
            shape=(3, 224, 224),
            preprocessing=str(_IMAGENET),
        ),
        layout="imagenet",
        folders=("imagenet", "ImageNet", "ILSVRC2012", "imagenet-1k"),
        files="val/n01440764/*.JPEG and the other 999 folders, *.parquet",
        hub=HubDataset("ILSVRC/imagenet-1k", "default", "data", (("test", "validation"), ("train", "train"))),
        preprocessing=_IMAGENET,
    ),
    robustbench_listed,
)
_RGB = Preprocessing("RGB")
TINY = _entry(
    PublishedSet(
        DataCard(
            name="tiny-imagenet",
            summary="10,000 validation images of 200 classes, 64×64 RGB; split=train: 100,000",
            source="Le and Yang, Tiny ImageNet Visual Recognition Challenge, CS231N, Stanford, 2015",
            licence="for non-commercial research",
            classes=200,
            shape=(3, 64, 64),
            preprocessing=str(_RGB),
        ),
        layout="tiny",
        folders=("tiny-imagenet", "tiny-imagenet-200"),
        files="tiny-imagenet-200/val/val_annotations.txt with images/, or folders by class, *.parquet",
        hub=HubDataset("zh-plus/tiny-imagenet", "default", "data", (("test", "valid"), ("train", "train"))),
        preprocessing=_RGB,
    )
)
