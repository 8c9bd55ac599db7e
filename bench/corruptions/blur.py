"""Blur: each function maps an image (H, W, C), float64 in [0, 1], to an image of the same shape."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.ndimage import correlate1d, gaussian_filter
from scipy.signal import fftconvolve

from gauntlet.bench.corruptions.image_ops import Pixels, enlarged, trail


def gaussian_blur(image: Pixels, random: np.random.RandomState, sigma: float) -> Pixels:
    """Gaussian blur with standard deviation `sigma` in pixels, truncated at 4 sigma, edges repeated."""
    blurred: Pixels = gaussian_filter(image, (sigma, sigma, 0), mode="nearest", truncate=4)
    return blurred


def defocus_blur(image: Pixels, random: np.random.RandomState, radius: float, soft: float) -> Pixels:
    """Blur with a disk of `radius` pixels whose edge is smoothed by a Gaussian kernel; the image is mirrored at its edges."""
    kernel = _disk(radius, soft)
    reach = len(kernel) // 2
    wide = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    blurred: Pixels = fftconvolve(wide, kernel[..., None], mode="valid", axes=(0, 1))
    return blurred


@lru_cache
def _disk(radius: float, soft: float) -> Pixels:
    """The square kernel without rows and columns of zeros; its sum is 1, except for disks that reach its edge."""
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
    """Between two Gaussian blurs, each pixel is replaced by a pixel up to `reach` above and left or `reach` − 1 below and right.

    The authors' code means to exchange pixels, but exchanges two views of one array, so that the published images have copies.
    """
    height, width, channels = image.shape
    # Eight bits, as in the authors' code.
    soft = np.floor(255 * gaussian_blur(image, random, sigma) + 1e-6)
    rows, columns = np.arange(height - reach, reach, -1), np.arange(width - reach, reach, -1)
    places = (rows[:, None] * width + columns).ravel()
    taken = list(range(height * width))
    for _ in range(rounds):
        right, down = random.randint(-reach, reach, size=(len(places), 2)).T
        # In sequence, since a moved pixel may be moved again.
        for place, source in zip(places.tolist(), (places + down * width + right).tolist(), strict=True):
            taken[place] = taken[source]
    moved = soft.reshape(-1, channels)[taken].reshape(image.shape) / 255
    return gaussian_blur(moved, random, sigma)


def motion_blur(image: Pixels, random: np.random.RandomState, radius: int, sigma: float) -> Pixels:
    """Motion blur of up to 2 · radius pixels, within 45 degrees of the horizontal."""
    return trail(image, radius, sigma, random.uniform(-45, 45))


def zoom_blur(image: Pixels, random: np.random.RandomState, last: float, step: float) -> Pixels:
    """The mean of the image and its enlargements by factors from 1 to about `last`, in steps of `step`."""
    factors = np.arange(1, last, step)
    total = image + sum(enlarged(image, factor) for factor in factors)
    return total / (len(factors) + 1)
