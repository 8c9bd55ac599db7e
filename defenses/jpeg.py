"""JPEG compression (Dziugaite et al. 2016; Das et al. 2017; Guo et al. 2018), as in ART."""

from __future__ import annotations

from gauntlet.attacks.ops.validators import whole_number
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry
from gauntlet.defenses.pipeline.through_numpy import ThroughNumpy, art_preprocessor


def build(quality: int = 50) -> ThroughNumpy:
    """Compress each image in memory with Pillow: three channels as RGB, others as a grey image per channel.

    ART truncates values to 8 bits instead of rounding, so that even quality 100 darkens by up to 1/255.
    """
    whole_number("quality", quality, 1, 100)
    jpeg = art_preprocessor("JpegCompression")
    return ThroughNumpy(jpeg(clip_values=(0, 1.0), quality=quality, channels_first=True))


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
