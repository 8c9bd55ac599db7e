"""Images in one sub-folder a class."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from gauntlet.bench.data.dataset import Data
from gauntlet.bench.data.selection import pick

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))


def from_folder(root: Path, samples: str | int | None = None, *, classes: int | None = None) -> Data:
    """Validated data from `root/CLASS/…/IMAGE`; only the images that `samples` names are read (see `selection.select`).

    Classes are the sub-folders sorted by name, hidden ones left out. The order takes the classes in turn (the first
    file of each, the second of each, …, files sorted by path), so that the first n samples are spread over the
    classes. Ids are paths relative to `root` with `/`. Images are 8-bit grey (L) or RGB and of one size; they become
    float32, divided by 255. Raises ValueError that names the file.
    """
    folders = sorted(one for one in root.iterdir() if one.is_dir() and not one.name.startswith("."))
    if len(folders) < 2:
        raise ValueError(
            f"folder {str(root)!r} has {len(folders)} sub-folders: put the images in one sub-folder a class, at least 2"
        )
    files = [(path, label) for turn in zip_longest(*map(_files, folders)) for label, path in enumerate(turn) if path]
    if classes is not None and classes < len(folders):
        raise ValueError(f"classes={classes!r} is less than the {len(folders)} sub-folders of {str(root)!r}")
    ids = [path.relative_to(root).as_posix() for path, _ in files]
    chosen = pick(ids, samples)
    return Data(
        name=root.resolve().name,
        images=torch.from_numpy(_read([files[i][0] for i in chosen])).to(torch.float32).div_(255),
        labels=torch.tensor([files[i][1] for i in chosen]),
        ids=tuple(ids[i] for i in chosen),
        classes=len(folders) if classes is None else classes,
        spec=str(root),
        positions=tuple(chosen),
    )


def _files(folder: Path) -> list[Path]:
    found = (one for one in folder.rglob("*") if one.suffix.lower() in SUFFIXES and not one.name.startswith("."))
    files = sorted((one for one in found if one.is_file()), key=lambda one: one.relative_to(folder).as_posix())
    if not files:
        raise ValueError(
            f"class folder {str(folder)!r} holds no image ({', '.join(sorted(SUFFIXES))}): add some, or remove it"
        )
    return files


def _read(paths: list[Path]) -> npt.NDArray[np.uint8]:
    """(N, C, H, W), filled image by image, so that the set stands in memory once."""
    images = np.empty(0, np.uint8)
    for index, path in enumerate(paths):
        pixels = _pixels(path)
        if index == 0:
            images = np.empty((len(paths), *pixels.shape), np.uint8)
        if pixels.shape != images.shape[1:]:
            raise ValueError(
                f"image {str(path)!r} has channels, height, width {pixels.shape}, the first one {str(paths[0])!r} has "
                f"{images.shape[1:]}: resize or convert the images to one size and mode"
            )
        images[index] = pixels
    return images


def _pixels(path: Path) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            mode, array = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"image {str(path)!r} cannot be read ({error}): replace or remove it") from error
    if mode not in ("L", "RGB"):
        raise ValueError(f"image {str(path)!r} has mode {mode}: convert it to L (8-bit grey) or RGB")
    return array[None] if mode == "L" else array.transpose(2, 0, 1)
