"""Weather: each function maps an image (H, W, C), float64 in [0, 1], to one that may leave [0, 1]."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates

from gauntlet.bench.corruptions.image_ops import Pixels, enlarged, grey, stored, trail


def snow(
    image: Pixels,
    random: np.random.RandomState,
    mean: float,
    spread: float,
    size: float,
    least: float,
    radius: int,
    sigma: float,
    keep: float,
) -> Pixels:
    """Snow: Gaussian noise enlarged by `size`, without values below `least`, blurred downwards, on a whitened image."""
    flakes = enlarged(random.normal(size=(*image.shape[:2], 1), loc=mean, scale=spread), size)
    flakes[flakes < least] = 0
    falling = np.rint(255 * trail(stored(flakes), radius, sigma, random.uniform(-135, -45))) / 255
    white = keep * image + (1 - keep) * np.maximum(image, 1.5 * grey(image) + 0.5)
    return white + falling + np.rot90(falling, k=2)


def fog(image: Pixels, random: np.random.RandomState, amount: float, decay: float) -> Pixels:
    """Fog: add a cloud between 0 and `amount`, and dim the image so that its largest value is kept."""
    height, width = image.shape[:2]
    brightest = float(image.max())
    cloud = plasma(1 << max(height - 1, width - 1).bit_length(), decay, random)[:height, :width, None]
    return (image + amount * cloud) * brightest / (brightest + amount)


def plasma(side: int, decay: float, random: np.random.RandomState) -> Pixels:
    """A random height map (side, side) in [0, 1] by the diamond-square algorithm on a torus; `side` is a power of two.

    The centres of squares, then of diamonds, are the mean of their corners plus a uniform random height, whose range falls by
    `decay` squared with each halving of the step.
    """
    heights = np.zeros((side, side))
    step, size = side, 100.0
    while step >= 2:
        half = step // 2

        def between(total: Pixels, size: float = size) -> Pixels:
            return total / 4 + size * random.uniform(-size, size, total.shape)

        corners = heights[::step, ::step]
        total = corners + np.roll(corners, -1, axis=0)
        heights[half::step, half::step] = between(total + np.roll(total, -1, axis=1))
        middles = heights[half::step, half::step]
        heights[::step, half::step] = between(
            middles + np.roll(middles, 1, axis=0) + corners + np.roll(corners, -1, axis=1)
        )
        heights[half::step, ::step] = between(
            middles + np.roll(middles, 1, axis=1) + corners + np.roll(corners, -1, axis=0)
        )
        step, size = half, size / decay
    heights -= heights.min()
    # A single pixel has no range of heights.
    return heights / (heights.max() or 1)


def frost(image: Pixels, random: np.random.RandomState, keep: float, add: float, scale: float) -> Pixels:
    """Add a random part of an image of frost, scaled by `scale`, or enlarged if it is smaller than the image."""
    height, width, channels = image.shape
    # The authors' code has six images, and takes one of the first five.
    picture = _picture(random.randint(5))
    scale = max(scale, (height + 1) / picture.shape[0], (width + 1) / picture.shape[1])
    top = random.randint(0, int(picture.shape[0] * scale) - height)
    left = random.randint(0, int(picture.shape[1] * scale) - width)
    rows = (np.arange(top, top + height) + 0.5) / scale - 0.5
    columns = (np.arange(left, left + width) + 0.5) / scale - 0.5
    places = np.meshgrid(rows, columns, indexing="ij")
    part = np.stack([map_coordinates(picture[..., c], places, order=1, mode="nearest") for c in range(3)], axis=2)
    return keep * image + add * (grey(part) if channels == 1 else part)


@lru_cache
def _picture(number: int) -> Pixels:
    """An image of frost from the package imagecorruptions, (H, W, 3) in [0, 1]. Raises ImportError."""
    name = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")[number]
    package = importlib.util.find_spec("imagecorruptions")
    if package is None or not package.submodule_search_locations:
        raise ImportError("the images of frost come with imagecorruptions: pip install 'robust-gauntlet[corruptions]'")
    with Image.open(Path(package.submodule_search_locations[0]) / "frost" / name) as file:
        return np.asarray(file.convert("RGB"), dtype=np.float64) / 255


def brightness(image: Pixels, random: np.random.RandomState, amount: float) -> Pixels:
    """Raise a pixel's largest channel by `amount`, to 1 at most; the other channels keep their ratio to it."""
    value: Pixels = image.max(axis=2, keepdims=True)
    raised: Pixels = np.minimum(value + amount, 1)
    share = np.divide(image, value, out=np.ones_like(image), where=value > 0)
    return share * raised
