"""Noise: each function takes an image (H, W, C), float64 in [0, 1], and gives one that may leave [0, 1]."""

from __future__ import annotations

import numpy as np

from gauntlet.bench.corruptions.image_ops import Pixels


def gaussian_noise(image: Pixels, random: np.random.RandomState, scale: float) -> Pixels:
    """Normal noise of that standard deviation."""
    return image + random.normal(size=image.shape, scale=scale)


def shot_noise(image: Pixels, random: np.random.RandomState, photons: float) -> Pixels:
    """Poisson noise: as many photons make a value of 1."""
    counted: Pixels = random.poisson(image * photons) / photons
    return counted


def impulse_noise(image: Pixels, random: np.random.RandomState, share: float) -> Pixels:
    """That share of the values becomes 0 or 1, either as likely."""
    struck = random.random_sample(image.shape) < share
    return np.where(struck, random.random_sample(image.shape) < 0.5, image)


def speckle_noise(image: Pixels, random: np.random.RandomState, scale: float) -> Pixels:
    """Normal noise whose standard deviation is that share of the value."""
    return image + image * random.normal(size=image.shape, scale=scale)
