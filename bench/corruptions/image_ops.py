"""The image type of corruptions, and operations that several corruptions share."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Pixels: TypeAlias = npt.NDArray[np.float64]
"""(H, W, C), in [0, 1]."""

_LUMINANCE = np.array([0.299, 0.587, 0.114])


def eight_bits(image: Pixels) -> npt.NDArray[np.uint8]:
    """Round to 8 bits."""
    return np.rint(255 * image).astype(np.uint8)


def stored(image: Pixels) -> Pixels:
    """Truncate to 8 bits, as in CIFAR-10-C; values that are 8-bit already are unchanged."""
    levels: Pixels = np.floor(255 * image.clip(0, 1) + 1e-6)
    return levels / 255


def grey(image: Pixels) -> Pixels:
    """The luminance (H, W, 1) of three channels, or the single channel."""
    return image if image.shape[2] == 1 else (image @ _LUMINANCE)[..., None]


def enlarged(image: Pixels, factor: float) -> Pixels:
    """The centre of the image, enlarged by `factor` to the size of the image, with linear interpolation."""
    from scipy.ndimage import zoom

    height, width = image.shape[:2]
    tall, broad = int(np.ceil(height / factor)), int(np.ceil(width / factor))
    top, left = (height - tall) // 2, (width - broad) // 2
    large = zoom(image[top : top + tall, left : left + broad], (factor, factor, 1), order=1)
    top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
    middle: Pixels = large[top : top + height, left : left + width]
    return middle


def trail(image: Pixels, radius: int, sigma: float, degrees: float) -> Pixels:
    """Motion blur as in ImageMagick: half a Gaussian kernel of 2 · radius + 1 pixels in a direction, edges repeated."""
    length = 2 * radius + 1
    weights = np.exp(-(np.arange(length) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    angle = np.deg2rad(degrees)
    rows, columns = np.arange(image.shape[0]), np.arange(image.shape[1])
    blurred = np.zeros_like(image)
    for step, weight in enumerate(weights):
        down, right = (int(np.ceil(step * part - 0.5)) for part in (np.sin(angle), np.cos(angle)))
        row = (rows + down).clip(0, len(rows) - 1)
        column = (columns + right).clip(0, len(columns) - 1)
        blurred += weight * image[row][:, column]
    return blurred
