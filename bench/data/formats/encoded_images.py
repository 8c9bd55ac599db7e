"""Encoded images (PNG, JPEG, …) and 8-bit arrays, decoded and preprocessed when they are indexed."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from gauntlet.bench.data.samples.lazy_images import Images, array_images
from gauntlet.bench.data.samples.preprocessing import MODES, PLAIN, Preprocessing, preprocess

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that Pillow decodes itself; others start programs (EPS runs Ghostscript) or are rarely images."""
SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))

Fetch = Callable[[Sequence[int]], Sequence[Path | bytes]]
"""Returns the files, or the contents of the files, of the images at these positions."""


def encoded_images(
    fetch: Fetch, describe: Callable[[int], str], count: int, preprocessing: Preprocessing = PLAIN
) -> Images:
    """Lazy images from the files that `fetch` returns; `describe` names an image in errors. The first sets the shape.

    Reading raises ValueError for an image that cannot be decoded, is neither grey nor RGB, or differs in shape from the
    first.
    """
    shape = _pixels(fetch([0])[0], describe(0), preprocessing).shape

    def read(rows: Sequence[int]) -> npt.NDArray[np.uint8]:
        batch = np.empty((len(rows), *shape), np.uint8)
        for at, (row, source) in enumerate(zip(rows, fetch(rows), strict=True)):
            pixels = _pixels(source, describe(row), preprocessing)
            if pixels.shape != shape:
                raise ValueError(
                    f"{describe(row)} has channels, height, width {pixels.shape}, but the first image, {describe(0)}, "
                    f"has {shape}: resize or convert the images to one size and mode, or add settings such as "
                    "(resize=256, crop=224, mode=RGB)"
                )
            batch[at] = pixels
        return batch

    return Images(read, count, shape)


def preprocessed_array(array: npt.NDArray[Any], preprocessing: Preprocessing = PLAIN) -> Images:
    """Lazy images from an array (N, C, H, W), preprocessed. Raises ValueError for preprocessing of other than 8-bit images."""
    if preprocessing == PLAIN:
        return array_images(array)
    if array.dtype != np.uint8 or array.shape[1] not in (1, 3):
        raise ValueError(
            f"images of {array.dtype} and shape {array.shape} cannot be preprocessed ({preprocessing}): that takes uint8 images "
            "(N, 1 or 3, H, W); resize or convert them before saving"
        )

    def image(row: int) -> npt.NDArray[np.uint8]:
        return _channels_first(preprocess(_picture(array[row]), preprocessing))

    return Images(lambda rows: np.stack([image(row) for row in rows]), len(array), image(0).shape)


def _picture(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)))


def _pixels(source: Path | bytes, description: str, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """(C, H, W). Raises ValueError."""
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=FORMATS) as file:
            mode = file.mode
            file.load()
            image = preprocess(file, preprocessing)
    except Exception as error:  # Pillow's decoders may raise anything for a damaged file
        raise ValueError(f"{description} cannot be read ({error}): replace or remove it") from error
    if image.mode not in MODES:
        raise ValueError(
            f"{description} has mode {mode}: convert it to L (8-bit grey) or RGB, or add the setting (mode=RGB)"
        )
    return _channels_first(image)


def _channels_first(image: Image.Image) -> npt.NDArray[np.uint8]:
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
