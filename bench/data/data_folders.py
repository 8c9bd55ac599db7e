"""Published data sets on disk: where they are looked for, in the layouts of torchvision and in their original files.

A place is a folder or file. What lies in it is of the set for sure where the user named the place for it, or where the
place has the set's name; below GAUNTLET_DATA itself only what can be told by its own name is taken: MNIST and Fashion-MNIST,
for instance, have files of the same names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gauntlet.bench.data.formats.cifar import ARCHIVES, BATCHES, FOLDERS, read_archive, read_batches
from gauntlet.bench.data.formats.idx import find_pair, read_idx_pair
from gauntlet.bench.data.formats.image_folder import class_folders, read_folder
from gauntlet.bench.data.formats.npz import of_npz
from gauntlet.bench.data.formats.parquet import read_parquet, shards
from gauntlet.bench.data.formats.raw_data import Raw
from gauntlet.bench.data.formats.svhn import FILES, read_svhn
from gauntlet.bench.data.formats.tiny_imagenet import ANNOTATIONS, read_annotated
from gauntlet.bench.data.samples.preprocessing import Preprocessing

VARIABLE = "GAUNTLET_DATA"
"""Environment variable with the folders, separated as in PATH, in which published sets are looked for."""
Reader = Callable[[Preprocessing], Raw]
_VALIDATION = ("validation", "valid", "val")
_TEST = {"imagenet": _VALIDATION, "tiny": _VALIDATION}
"""Names of the split that is evaluated, where it is not `test`: that one has no labels there."""
_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Place:
    """A folder or file to look in."""

    path: Path
    own: bool
    """Whether what lies there is of the set for sure."""


def places(names: tuple[str, ...], root: Path | None) -> list[Place]:
    """Where to look, in order: only in `root` where it is given; else in the folders of GAUNTLET_DATA, and below them in
    those with one of the set's names. Raises ValueError for places that are not there."""
    if root is not None:
        if not root.exists():
            raise ValueError(f"data folder {str(root)!r} is not there: write NAME@FOLDER, settings before the @")
        return [Place(root, own=True)]
    roots = data_folders()
    strange = [one for one in roots if not one.is_dir()]
    if strange:
        raise ValueError(f"{VARIABLE} names {str(strange[0])!r}, which is no folder: correct or unset it")
    below = [Place(one / name, own=True) for one in roots for name in names if (one / name).is_dir()]
    return [*below, *(Place(one, own=False) for one in roots)]


def data_folders() -> list[Path]:
    """The folders that GAUNTLET_DATA names."""
    return [Path(one).expanduser() for one in os.environ.get(VARIABLE, "").split(os.pathsep) if one.strip()]


def find(kind: str, name: str, split: str, place: Place, classes: int) -> Reader | None:
    """What reads the set from that place; None where nothing of it is there. `kind` is one of `KINDS`."""
    found = next(iter(KINDS[kind](name, split, place, classes)), None)
    return found or (next(_common(kind, split, place), None) if place.own else None)


def _common(kind: str, split: str, place: Place) -> Iterator[Reader]:
    """Formats of any set."""
    path = place.path
    if path.is_file() and path.suffix.lower() == ".npz":
        yield partial(of_npz, path)
    if path.is_file() and path.suffix.lower() == ".parquet":
        yield partial(read_parquet, [path])
    if path.is_dir():
        for one in _TEST.get(kind, ("test",)) if split == "test" else ("train",):
            for pattern in (f"{one}-*.parquet", f"{one}.parquet", f"*/{one}-*.parquet", f"*/{one}.parquet"):
                files = list(path.glob(pattern))
                if files:
                    yield partial(read_parquet, shards(files))


def _cifar(name: str, split: str, place: Place, classes: int) -> Iterator[Reader]:
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


def _idx(name: str, split: str, place: Place, classes: int) -> Iterator[Reader]:
    folder = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[name]
    path = place.path
    for one in (path / folder / "raw", path / folder, *([path / "raw", path] if place.own else [])):
        if (pair := find_pair(one, split)) is not None:
            yield partial(read_idx_pair, *pair)


def _svhn(name: str, split: str, place: Place, classes: int) -> Iterator[Reader]:
    path = place.path
    for one in (path / FILES[split], *([path] if place.own and path.suffix.lower() == ".mat" else [])):
        if one.is_file():
            yield partial(read_svhn, one)


def _imagenet(name: str, split: str, place: Place, classes: int) -> Iterator[Reader]:
    path = place.path
    for one in (path / {"test": "val", "train": "train"}[split], *([path] if place.own else [])):
        # Tiny ImageNet has classes of the same names, and tells by its list of them.
        if _has_classes(one) and not (path / "wnids.txt").is_file():
            yield partial(read_folder, one, count=classes)


def _tiny(name: str, split: str, place: Place, classes: int) -> Iterator[Reader]:
    path = place.path
    for base in (path / "tiny-imagenet-200", *([path] if place.own else [])):
        folder = base / {"test": "val", "train": "train"}[split]
        for one in (folder, *([base] if place.own and split == "test" else [])):
            if (one / ANNOTATIONS).is_file() and (one / "images").is_dir():
                yield partial(read_annotated, one, count=classes)
            elif _has_classes(one):
                yield partial(read_folder, one, count=classes)


def _has_classes(folder: Path) -> bool:
    return folder.is_dir() and any(_WNID.fullmatch(one.name) for one in class_folders(folder))


KINDS: dict[str, Callable[[str, str, Place, int], Iterator[Reader]]] = {
    "cifar": _cifar,
    "idx": _idx,
    "svhn": _svhn,
    "imagenet": _imagenet,
    "tiny": _tiny,
}
