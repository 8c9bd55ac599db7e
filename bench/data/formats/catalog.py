"""All data formats: files and folders of any data set, and the layouts in which published data sets are distributed.

To add a file format, add its suffix to `FILE_READERS` and `suffixes.py`; the layout of a published set goes to `LAYOUTS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gauntlet.bench.data.formats.cifar import ARCHIVES, BATCHES, FOLDERS, read_archive, read_batches
from gauntlet.bench.data.formats.idx import find_pair, read_idx_pair
from gauntlet.bench.data.formats.image_folder import class_folders, read_folder
from gauntlet.bench.data.formats.npz import read_npz
from gauntlet.bench.data.formats.parquet import ordered_shards, read_parquet
from gauntlet.bench.data.formats.raw_data import RawData
from gauntlet.bench.data.formats.suffixes import is_data_file
from gauntlet.bench.data.formats.svhn import FILES, read_svhn
from gauntlet.bench.data.formats.tiny_imagenet import ANNOTATIONS, read_annotated
from gauntlet.bench.data.samples.preprocessing import PLAIN, Preprocessing

Reader = Callable[[Preprocessing], RawData]
"""Reads a data set with the given preprocessing."""

FILE_READERS: dict[str, Callable[[Path, Preprocessing], RawData]] = {
    ".npz": read_npz,
    ".parquet": lambda path, preprocessing: read_parquet([path], preprocessing),
}
"""Readers of single files, by suffix in lower case: those of `FILE_SUFFIXES`."""

_VALIDATION = ("validation", "valid", "val")
_TEST_NAMES = {"imagenet": _VALIDATION, "tiny": _VALIDATION}
"""Names of the split that is evaluated, for layouts whose `test` split has no labels."""
_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class SearchPlace:
    """A folder or file in which a published set is searched for."""

    path: Path
    own: bool
    """Whether the place belongs to the set: the user named it, or it has the set's name.

    Files whose names several sets share, such as those of MNIST and Fashion-MNIST, are read from such a place only.
    """


def read_path(path: Path, preprocessing: Preprocessing = PLAIN) -> RawData:
    """Read a data file, a folder of Parquet files, or a folder with one sub-folder per class. Raises ValueError."""
    if not path.is_dir():
        return FILE_READERS[path.suffix.lower()](path, preprocessing)
    files = list(path.glob("*.parquet"))
    return read_parquet(ordered_shards(files), preprocessing) if files else read_folder(path, preprocessing)


def find_reader(layout: str, name: str, split: str, place: SearchPlace, classes: int) -> Reader | None:
    """The reader for a published set at that place, or None if the set is not there. `layout` is one of `LAYOUTS`."""
    reader = next(iter(LAYOUTS[layout](name, split, place, classes)), None)
    return reader or (next(_any_set(layout, split, place), None) if place.own else None)


def _any_set(layout: str, split: str, place: SearchPlace) -> Iterator[Reader]:
    """Formats that any set may have."""
    path = place.path
    if path.is_file() and is_data_file(path):
        yield partial(read_path, path)
    if path.is_dir():
        for name in _TEST_NAMES.get(layout, ("test",)) if split == "test" else ("train",):
            for pattern in (f"{name}-*.parquet", f"{name}.parquet", f"*/{name}-*.parquet", f"*/{name}.parquet"):
                files = list(path.glob(pattern))
                if files:
                    yield partial(read_parquet, ordered_shards(files))


def _cifar(name: str, split: str, place: SearchPlace, classes: int) -> Iterator[Reader]:
    path, names = place.path, BATCHES[name, split]
    for folder in (path / FOLDERS[name], *([path] if place.own else [])):
        if (folder / names[0]).is_file():
            yield partial(read_batches, folder, names)
    archives = [path / ARCHIVES[name]]
    if place.own and path.is_file() and path.suffix.lower() in (".gz", ".tgz", ".tar"):
        archives = [path]
    for archive in archives:
        if archive.is_file():
            yield partial(read_archive, archive, FOLDERS[name], names)
    if place.own and path.is_file() and path.name in names:
        yield partial(read_batches, path.parent, names)


def _idx(name: str, split: str, place: SearchPlace, classes: int) -> Iterator[Reader]:
    folder = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[name]
    path = place.path
    for candidate in (path / folder / "raw", path / folder, *([path / "raw", path] if place.own else [])):
        if (pair := find_pair(candidate, split)) is not None:
            yield partial(read_idx_pair, *pair)


def _svhn(name: str, split: str, place: SearchPlace, classes: int) -> Iterator[Reader]:
    path = place.path
    for candidate in (path / FILES[split], *([path] if place.own and path.suffix.lower() == ".mat" else [])):
        if candidate.is_file():
            yield partial(read_svhn, candidate)


def _imagenet(name: str, split: str, place: SearchPlace, classes: int) -> Iterator[Reader]:
    path = place.path
    for candidate in (path / {"test": "val", "train": "train"}[split], *([path] if place.own else [])):
        # Tiny ImageNet has class folders of the same names; it also has a list of them.
        if _has_classes(candidate) and not (path / "wnids.txt").is_file():
            yield partial(read_folder, candidate, count=classes)


def _tiny(name: str, split: str, place: SearchPlace, classes: int) -> Iterator[Reader]:
    path = place.path
    for base in (path / "tiny-imagenet-200", *([path] if place.own else [])):
        folder = base / {"test": "val", "train": "train"}[split]
        for candidate in (folder, *([base] if place.own and split == "test" else [])):
            if (candidate / ANNOTATIONS).is_file() and (candidate / "images").is_dir():
                yield partial(read_annotated, candidate, count=classes)
            elif _has_classes(candidate):
                yield partial(read_folder, candidate, count=classes)


def _has_classes(folder: Path) -> bool:
    return folder.is_dir() and any(_WNID.fullmatch(child.name) for child in class_folders(folder))


LAYOUTS: dict[str, Callable[[str, str, SearchPlace, int], Iterator[Reader]]] = {
    "cifar": _cifar,
    "idx": _idx,
    "svhn": _svhn,
    "imagenet": _imagenet,
    "tiny": _tiny,
}
"""Layouts of published sets: those of torchvision and the original files. Each yields the readers that fit a place."""
