"""Spatter, by the library imagecorruptions, which computes contours and distances with OpenCV."""

from __future__ import annotations

import warnings

import numpy as np

from gauntlet.bench.corruptions.image_ops import Pixels, eight_bits

_LEAST = 32


def spatter(image: Pixels, random: np.random.RandomState, severity: int) -> Pixels:
    """Drops of water or mud on (H, W, 3), as in ImageNet-C. Raises ValueError below 32 pixels, and ImportError."""
    if min(image.shape[:2]) < _LEAST:
        raise ValueError(f"spatter is for images of at least {_LEAST} × {_LEAST} pixels, not of {image.shape[:2]}")
    from imagecorruptions import corrupt

    before = np.random.get_state()
    try:
        np.random.seed(random.randint(2**31))
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            spattered = corrupt(eight_bits(image), corruption_name="spatter", severity=severity)
    finally:
        np.random.set_state(before)
    return np.asarray(spattered, dtype=np.float64) / 255
