"""Noise: each function maps an image (H, W, C), float64 in [0, 1], to one that may leave [0, 1]."""

from __future__ import annotations

import numpy as np

from gauntlet.bench.corruptions.image_ops import Pixels


def gaussian_noise(image: Pixels, random: np.random.RandomState, scale: float) -> Pixels:
    """Gaussian noise with standard deviation `scale`."""
    return image + random.normal(size=image.shape, scale=scale)


def shot_noise(image: Pixels, random: np.random.RandomState, photons: float) -> Pixels:
    """Poisson noise, where a value of 1 is `photons` photons on average."""
    counted: Pixels = random.poisson(image * photons) / photons
    return counted


def impulse_noise(image: Pixels, random: np.random.RandomState, share: float) -> Pixels:
    """Replace the share `share` of the values by 0 or 1 with equal probability."""
    struck = random.random_sample(image.shape) < share
    return np.where(struck, random.random_sample(image.shape) < 0.5, image)


def speckle_noise(image: Pixels, random: np.random.RandomState, scale: float) -> Pixels:
    """Gaussian noise with standard deviation `scale` times the value."""
    return image + image * random.normal(size=image.shape, scale=scale)
