"""Digital corruptions: each function maps an image (H, W, C), float64 in [0, 1], to an image of the same shape."""

from __future__ import annotations

from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from gauntlet.bench.corruptions.image_ops import Pixels, eight_bits


def contrast(image: Pixels, random: np.random.RandomState, keep: float) -> Pixels:
    """Reduce contrast: keep the share `keep` of each value's difference from the mean of its channel."""
    mean: Pixels = image.mean(axis=(0, 1), keepdims=True)
    return (image - mean) * keep + mean


def saturate(image: Pixels, random: np.random.RandomState, factor: float, more: float) -> Pixels:
    """Multiply the HSV saturation of (H, W, 3) by `factor` and add `more`; with `more`, grey pixels become red."""
    value: Pixels = image.max(axis=2, keepdims=True)
    chroma = value - image.min(axis=2, keepdims=True)
    saturation = np.divide(chroma, value, out=np.zeros_like(value), where=value > 0)
    wanted = (saturation * factor + more).clip(0, 1)
    # The hue of a grey pixel is taken as 0, red.
    away = np.where(chroma > 0, (value - image) / np.where(chroma > 0, chroma, 1), np.array([0.0, 1.0, 1.0]))
    coloured: Pixels = value * (1 - wanted * away)
    return coloured


def elastic_transform(
    image: Pixels, random: np.random.RandomState, strength: float, smoothness: float, affine: float
) -> Pixels:
    """A random affine map, then smoothed random shifts; all three settings are shares of the image's shorter side.

    Interpolation is linear, and the image is mirrored at its edges.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    middle, third = np.array([height // 2, width // 2]), side // 3
    corners = np.array([middle + third, [middle[0] + third, middle[1] - third], middle - third], dtype=np.float64)
    moved = corners + random.uniform(-affine * side, affine * side, size=corners.shape)
    # Rows (x, y, 1) times this matrix are the source coordinates.
    back = np.linalg.solve(np.c_[moved, np.ones(3)], np.c_[corners, np.ones(3)])
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    source: Pixels = np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ back
    mapped = _sampled(image, source[..., 1], source[..., 0], "mirror")

    def shifts() -> Pixels:
        field = random.uniform(-1, 1, size=(height, width))
        smooth: Pixels = strength * side * gaussian_filter(field, smoothness * side, mode="reflect", truncate=3)
        return smooth

    right, down = shifts(), shifts()
    return _sampled(mapped, rows + down, columns + right, "reflect")


def _sampled(image: Pixels, rows: Pixels, columns: Pixels, mode: Literal["mirror", "reflect"]) -> Pixels:
    channels = [
        map_coordinates(image[..., channel], (rows, columns), order=1, mode=mode) for channel in range(image.shape[2])
    ]
    return np.stack(channels, axis=2)


def pixelate(image: Pixels, random: np.random.RandomState, scale: float) -> Pixels:
    """Shrink by `scale` with box averaging, and enlarge to the original size without smoothing."""
    height, width = image.shape[:2]
    small = max(1, int(width * scale)), max(1, int(height * scale))
    channels = [Image.fromarray(channel) for channel in eight_bits(image).transpose(2, 0, 1)]
    large = [
        channel.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)
        for channel in channels
    ]
    return np.stack([np.asarray(channel) for channel in large], axis=2) / 255


def jpeg_compression(image: Pixels, random: np.random.RandomState, quality: int) -> Pixels:
    """JPEG compression with Pillow at `quality`; for one or three channels."""
    pixels = eight_bits(image)
    file = BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "JPEG", quality=quality)
    read = np.asarray(Image.open(file), dtype=np.float64) / 255
    return read.reshape(image.shape)
