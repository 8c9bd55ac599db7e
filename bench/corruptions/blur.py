"""Blur: each function takes an image (H, W, C), float64 in [0, 1], and gives one of the same shape."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.ndimage import correlate1d, gaussian_filter
from scipy.signal import fftconvolve

from gauntlet.bench.corruptions.image_ops import Pixels, enlarged, trail


def gaussian_blur(image: Pixels, random: np.random.RandomState, sigma: float) -> Pixels:
    """A normal kernel of that standard deviation in pixels, cut off at 4 of them, edges repeated."""
    blurred: Pixels = gaussian_filter(image, (sigma, sigma, 0), mode="nearest", truncate=4)
    return blurred


def defocus_blur(image: Pixels, random: np.random.RandomState, radius: float, soft: float) -> Pixels:
    """A disk of that radius in pixels, its edge softened by a normal kernel; the image is mirrored at its edges."""
    kernel = _disk(radius, soft)
    reach = len(kernel) // 2
    wide = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    blurred: Pixels = fftconvolve(wide, kernel[..., None], mode="valid", axes=(0, 1))
    return blurred


@lru_cache
def _disk(radius: float, soft: float) -> Pixels:
    """A square kernel without the rows and columns that are zero; its sum is 1, but for disks that reach its edge."""
    reach, taps = (8, 1) if radius <= 8 else (int(radius), 2)
    line = np.arange(-reach, reach + 1)
    disk = (line[:, None] ** 2 + line[None, :] ** 2 <= radius**2).astype(np.float64)
    disk /= disk.sum()
    near = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * soft**2))
    for axis in (0, 1):
        disk = correlate1d(disk, near / near.sum(), axis=axis, mode="mirror")
    empty = max(0, reach - int(radius) - taps)
    whole: Pixels = disk[empty : len(disk) - empty, empty : len(disk) - empty]
    return whole


def glass_blur(image: Pixels, random: np.random.RandomState, sigma: float, reach: int, rounds: int) -> Pixels:
    """Between two normal blurs, each pixel becomes one up to `reach` pixels above and left, or `reach` − 1 below and right.

    The published images have copies where an exchange was meant: the authors' code exchanges two views of one array.
    """
    height, width, channels = image.shape
    # Eight bits, as there.
    soft = np.floor(255 * gaussian_blur(image, random, sigma) + 1e-6)
    rows, columns = np.arange(height - reach, reach, -1), np.arange(width - reach, reach, -1)
    places = (rows[:, None] * width + columns).ravel()
    taken = list(range(height * width))
    for _ in range(rounds):
        right, down = random.randint(-reach, reach, size=(len(places), 2)).T
        # One after the other: what was moved may be moved on.
        for place, source in zip(places.tolist(), (places + down * width + right).tolist(), strict=True):
            taken[place] = taken[source]
    moved = soft.reshape(-1, channels)[taken].reshape(image.shape) / 255
    return gaussian_blur(moved, random, sigma)


def motion_blur(image: Pixels, random: np.random.RandomState, radius: int, sigma: float) -> Pixels:
    """A trail of up to 2 · radius pixels, within 45 degrees of the horizontal."""
    return trail(image, radius, sigma, random.uniform(-45, 45))


def zoom_blur(image: Pixels, random: np.random.RandomState, last: float, step: float) -> Pixels:
    """The mean of the image and of its enlargements by factors from 1 in steps up to about `last`."""
    factors = np.arange(1, last, step)
    total = image + sum(enlarged(image, factor) for factor in factors)
    return total / (len(factors) + 1)
