"""Folders with one sub-folder of images per class."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np

from gauntlet.bench.data.formats.encoded_images import SUFFIXES, encoded_images
from gauntlet.bench.data.formats.raw_data import RawData
from gauntlet.bench.data.samples.lazy_images import Images
from gauntlet.bench.data.samples.preprocessing import PLAIN, Preprocessing


def read_folder(root: Path, preprocessing: Preprocessing = PLAIN, *, count: int | None = None) -> RawData:
    """Read the images `root/CLASS/…/IMAGE`; the classes are the sub-folders sorted by name, without hidden folders.

    Samples take the classes in turn (the first file of each, the second of each, …, files sorted by path), so that the
    first n samples are spread over the classes. Names are paths relative to `root` with `/`. `count`: the required number
    of classes; with it a class may have no image. Raises ValueError.
    """
    folders = class_folders(root)
    if count is not None and len(folders) != count:
        raise ValueError(
            f"folder {str(root)!r} has {len(folders)} sub-folders, not one for each of the {count} classes: a label is the "
            "index of a folder, so make an empty folder for each class without images"
        )
    if len(folders) < 2:
        raise ValueError(
            f"folder {str(root)!r} has {len(folders)} sub-folders: put the images into one sub-folder per class, at least 2"
        )
    by_class = [_files(folder, may_be_empty=count is not None) for folder in folders]
    files = [(path, label) for turn in zip_longest(*by_class) for label, path in enumerate(turn) if path]
    if not files:
        raise ValueError(f"the class folders of {str(root)!r} contain no image ({', '.join(sorted(SUFFIXES))})")
    return RawData(
        images=image_files([path for path, _ in files], preprocessing),
        labels=np.array([label for _, label in files], dtype=np.int64),
        names=tuple(path.relative_to(root).as_posix() for path, _ in files),
        classes=len(folders),
        class_names=tuple(folder.name for folder in folders),
    )


def class_folders(root: Path) -> list[Path]:
    """The sub-folders of the classes, in the order of their labels."""
    return sorted(child for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))


def image_files(files: Sequence[Path], preprocessing: Preprocessing = PLAIN) -> Images:
    """Images from these files."""
    return encoded_images(
        lambda rows: [files[row] for row in rows], lambda row: f"image {str(files[row])!r}", len(files), preprocessing
    )


def _files(folder: Path, *, may_be_empty: bool) -> list[Path]:
    images = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    files = sorted((path for path in images if path.is_file()), key=lambda path: path.relative_to(folder).as_posix())
    if not files and not may_be_empty:
        raise ValueError(
            f"class folder {str(folder)!r} contains no image ({', '.join(sorted(SUFFIXES))}): add some, or remove it"
        )
    return files
