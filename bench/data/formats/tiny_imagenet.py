"""The validation images of Tiny ImageNet: one folder of images, with a list of their classes.

Le and Yang, Tiny ImageNet Visual Recognition Challenge (CS231N, Stanford, 2015): `val/images/val_0.JPEG`, …, and
`val/val_annotations.txt` with a line for each image: file, class and more, separated by tabs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gauntlet.bench.data.formats.image_folder import image_files
from gauntlet.bench.data.formats.raw_data import RawData, unreadable_file
from gauntlet.bench.data.samples.preprocessing import PLAIN, Preprocessing
from gauntlet.leaderboard.results.user_text import read_user_text

ANNOTATIONS = "val_annotations.txt"


def read_annotated(folder: Path, preprocessing: Preprocessing = PLAIN, *, count: int | None = None) -> RawData:
    """Read the images of `folder/images` that `folder/val_annotations.txt` lists, in its order, named by their files.

    Labels are the indices of the classes sorted by name, as in torchvision's ImageFolder. The classes are those of
    `wnids.txt` in `folder` or its parent, else those of the list; there must be `count` classes. Raises ValueError.
    """
    path = folder / ANNOTATIONS
    try:
        rows = [line.split("\t")[:2] for line in read_user_text(path).splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise unreadable_file(path, error, "it should be a text file with a line for each image") from error
    if not rows or any(len(row) < 2 or not all(row) for row in rows):
        raise unreadable_file(path, "a line has no file or no class", "a line is file, tab, class; the rest is ignored")
    invalid = [name for name, _ in rows if Path(name).name != name]
    if invalid:
        raise unreadable_file(path, f"{invalid[0]!r} is not a plain file name", "files must be in the folder images")
    named = _classes(folder) or sorted({label for _, label in rows})
    if count is not None and len(named) != count:
        raise ValueError(
            f"{str(path)!r} has {len(named)} classes, not {count}: put wnids.txt, which lists all of them, beside it"
        )
    place = {name: number for number, name in enumerate(named)}
    unknown = [label for _, label in rows if label not in place]
    if unknown:
        raise unreadable_file(path, f"class {unknown[0]!r} is not in wnids.txt", "the two files belong together")
    files = [folder / "images" / name for name, _ in rows]
    return RawData(
        images=image_files(files, preprocessing),
        labels=np.array([place[label] for _, label in rows], dtype=np.int64),
        names=tuple(name for name, _ in rows),
        classes=len(named),
    )


def _classes(folder: Path) -> list[str]:
    for place in (folder / "wnids.txt", folder.parent / "wnids.txt"):
        if place.is_file():
            try:
                return sorted(read_user_text(place).split())
            except ValueError as error:
                raise unreadable_file(
                    place, error, "it should be a text file with the name of a class in each line"
                ) from error
    return []
