"""JPEG compression (Dziugaite et al. 2016; Das et al. 2017; Guo et al. 2018), as in ART."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gauntlet.attacks.ops.validators import whole_number
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry
from gauntlet.defenses.pipeline.through_numpy import Preprocessor, ThroughNumpy, art_preprocessor

_BLOCK = 8
"""Sides of the blocks that JPEG compresses, each by itself in a grey image."""
_HIGHEST, _PIXELS = 65_500, 2**24
"""The highest JPEG image, and the largest that is compressed at once."""


class JpegCompression:
    """ART's preprocessor; grey images of whole blocks are compressed one above the other in a single image, bit for bit alike."""

    def __init__(self, preprocessor: Preprocessor) -> None:
        self.preprocessor = preprocessor

    def __call__(self, images: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], None]:
        """Compressed images (N, C, H, W), and None, as in ART."""
        _, channels, height, width = images.shape
        rows = min(_HIGHEST, _PIXELS // width) // height * height
        if channels == 3 or height % _BLOCK or width % _BLOCK or not rows:
            return self.preprocessor(images)[0], None
        tall = images.reshape(1, 1, -1, width)
        parts = [self.preprocessor(tall[:, :, start : start + rows])[0] for start in range(0, tall.shape[2], rows)]
        return np.concatenate(parts, axis=2).reshape(images.shape), None


def build(quality: int = 50) -> ThroughNumpy:
    """Compress each image in memory with Pillow: three channels as RGB, others as a grey image per channel.

    ART truncates values to 8 bits instead of rounding, so that even quality 100 darkens by up to 1/255.
    """
    whole_number("quality", quality, 1, 100)
    jpeg = art_preprocessor("JpegCompression")
    return ThroughNumpy(JpegCompression(jpeg(clip_values=(0, 1.0), quality=quality, channels_first=True)))


ENTRY = DefenseEntry(
    DefenseCard(
        name="jpeg",
        summary="JPEG compression and decompression",
        source="Dziugaite et al. 2016, arXiv 1608.00853; Das et al. 2017, arXiv 1705.02900; ART JpegCompression",
        library="adversarial-robustness-toolbox",
        differentiable=False,
        randomised=False,
    ),
    build,
)
