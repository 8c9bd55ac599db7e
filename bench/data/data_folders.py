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
from gauntlet.bench.data.formats.npz import read_npz
from gauntlet.bench.data.formats.parquet import ordered_shards, read_parquet
from gauntlet.bench.data.formats.raw_data import RawData
from gauntlet.bench.data.formats.svhn import FILES, read_svhn
from gauntlet.bench.data.formats.tiny_imagenet import ANNOTATIONS, read_annotated
from gauntlet.bench.data.samples.preprocessing import Preprocessing

VARIABLE = "GAUNTLET_DATA"
"""Environment variable with the folders, separated as in PATH, in which published sets are looked for."""
Reader = Callable[[Preprocessing], RawData]
_VALIDATION = ("validation", "valid", "val")
_TEST = {"imagenet": _VALIDATION, "tiny": _VALIDATION}
"""Names of the split that is evaluated, where it is not `test`: that one has no labels there."""
_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class SearchPlace:
    """A folder or file to look in."""

    path: Path
    own: bool
    """Whether what lies there is of the set for sure."""


def search_places(names: tuple[str, ...], root: Path | None) -> list[SearchPlace]:
    """Where to look, in order: only in `root` where it is given; else in the folders of GAUNTLET_DATA, and below them in
    those with one of the set's names. Raises ValueError for places that are not there."""
    if root is not None:
        if not root.exists():
            raise ValueError(f"data folder {str(root)!r} is not there: write NAME@FOLDER, settings before the @")
        return [SearchPlace(root, own=True)]
    roots = data_folders()
    missing = [folder for folder in roots if not folder.is_dir()]
    if missing:
        raise ValueError(f"{VARIABLE} names {str(missing[0])!r}, which is no folder: correct or unset it")
    below = [SearchPlace(folder / name, own=True) for folder in roots for name in names if (folder / name).is_dir()]
    return [*below, *(SearchPlace(folder, own=False) for folder in roots)]


def data_folders() -> list[Path]:
    """The folders that GAUNTLET_DATA names."""
    return [Path(folder).expanduser() for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder.strip()]


def find_reader(kind: str, name: str, split: str, place: SearchPlace, classes: int) -> Reader | None:
    """What reads the set from that place; None where nothing of it is there. `kind` is one of `KINDS`."""
    reader = next(iter(KINDS[kind](name, split, place, classes)), None)
    return reader or (next(_common(kind, split, place), None) if place.own else None)


def _common(kind: str, split: str, place: SearchPlace) -> Iterator[Reader]:
    """Formats of any set."""
    path = place.path
    if path.is_file() and path.suffix.lower() == ".npz":
        yield partial(read_npz, path)
    if path.is_file() and path.suffix.lower() == ".parquet":
        yield partial(read_parquet, [path])
    if path.is_dir():
        for name in _TEST.get(kind, ("test",)) if split == "test" else ("train",):
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
    torchvision_name = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[name]
    path = place.path
    for candidate in (
        path / torchvision_name / "raw",
        path / torchvision_name,
        *([path / "raw", path] if place.own else []),
    ):
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
        # Tiny ImageNet has classes of the same names, and tells by its list of them.
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


KINDS: dict[str, Callable[[str, str, SearchPlace, int], Iterator[Reader]]] = {
    "cifar": _cifar,
    "idx": _idx,
    "svhn": _svhn,
    "imagenet": _imagenet,
    "tiny": _tiny,
}
