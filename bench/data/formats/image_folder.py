"""Images in one sub-folder a class."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np

from gauntlet.bench.data.formats.encoded_images import SUFFIXES, pictures
from gauntlet.bench.data.formats.raw_data import Raw
from gauntlet.bench.data.samples.lazy_images import Images
from gauntlet.bench.data.samples.preprocessing import PLAIN, Preprocessing


def read_folder(root: Path, how: Preprocessing = PLAIN, *, count: int | None = None) -> Raw:
    """The images `root/CLASS/…/IMAGE`, whose classes are the sub-folders sorted by name, hidden ones left out.

    The order takes the classes in turn (the first file of each, the second of each, …, files sorted by path), so that
    the first n samples are spread over the classes. Names are paths relative to `root` with `/`. `count`: how many
    classes there must be; then a class may have no image. Raises ValueError.
    """
    folders = class_folders(root)
    if count is not None and len(folders) != count:
        raise ValueError(
            f"folder {str(root)!r} has {len(folders)} sub-folders, not one for each of the {count} classes: a label is a "
            "class's place among all of them, so make an empty folder for each class that is left out"
        )
    if len(folders) < 2:
        raise ValueError(
            f"folder {str(root)!r} has {len(folders)} sub-folders: put the images in one sub-folder a class, at least 2"
        )
    found = [_files(folder, may_be_empty=count is not None) for folder in folders]
    files = [(path, label) for turn in zip_longest(*found) for label, path in enumerate(turn) if path]
    if not files:
        raise ValueError(f"the class folders of {str(root)!r} hold no image ({', '.join(sorted(SUFFIXES))})")
    return Raw(
        images=of_files([path for path, _ in files], how),
        labels=np.array([label for _, label in files], dtype=np.int64),
        names=tuple(path.relative_to(root).as_posix() for path, _ in files),
        classes=len(folders),
    )


def class_folders(root: Path) -> list[Path]:
    """The sub-folders that are classes, in the order of their labels."""
    return sorted(one for one in root.iterdir() if one.is_dir() and not one.name.startswith("."))


def of_files(files: Sequence[Path], how: Preprocessing = PLAIN) -> Images:
    """The pictures in these files."""
    return pictures(
        lambda rows: [files[row] for row in rows], lambda row: f"image {str(files[row])!r}", len(files), how
    )


def _files(folder: Path, *, may_be_empty: bool) -> list[Path]:
    found = (one for one in folder.rglob("*") if one.suffix.lower() in SUFFIXES and not one.name.startswith("."))
    files = sorted((one for one in found if one.is_file()), key=lambda one: one.relative_to(folder).as_posix())
    if not files and not may_be_empty:
        raise ValueError(
            f"class folder {str(folder)!r} holds no image ({', '.join(sorted(SUFFIXES))}): add some, or remove it"
        )
    return files
