"""The corruptions by name. Listing them imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = "corruption."
"""Before the name of a corruption where attacks are named."""
SEVERITIES = (1, 2, 3, 4, 5)
GROUPS = ("noise", "blur", "weather", "digital")


@dataclass(frozen=True)
class CorruptionKind:
    """The description of a corruption."""

    summary: str
    """One line."""
    group: Literal["noise", "blur", "weather", "digital"]
    channels: tuple[int, ...] | None = None
    """Numbers of channels that images may have; None for any."""
    of_the_benchmark: bool = True
    """Whether it is one of the 15 corruptions of the mean corruption error; the other 4 are for validation."""
    uses: tuple[str, ...] = ()
    """Python distributions, one of which is required, and whose version determines the images."""


_LIBRARY = ("imagecorruptions-imaug", "imagecorruptions")

CORRUPTIONS: dict[str, CorruptionKind] = {
    "gaussian_noise": CorruptionKind("normal noise, as in low light", "noise"),
    "shot_noise": CorruptionKind("Poisson noise, as of few photons", "noise"),
    "impulse_noise": CorruptionKind("values set to black or white, as by errors of bits", "noise"),
    "defocus_blur": CorruptionKind("a disk, as out of focus", "blur"),
    "glass_blur": CorruptionKind("pixels moved about between two blurs, as through frosted glass", "blur"),
    "motion_blur": CorruptionKind("a trail in a random direction near the horizontal", "blur"),
    "zoom_blur": CorruptionKind("the mean of enlargements, as moving towards the object", "blur"),
    "snow": CorruptionKind("falling flakes, and a whitened picture", "weather", channels=(1, 3)),
    "frost": CorruptionKind("a picture of frost blended in", "weather", channels=(1, 3), uses=_LIBRARY),
    "fog": CorruptionKind("a random cloud of light, and less contrast", "weather"),
    "brightness": CorruptionKind("a larger value in hue, saturation, value", "weather"),
    "contrast": CorruptionKind("values nearer to the mean of the channel", "digital"),
    "elastic_transform": CorruptionKind("a small affine map, then small random shifts", "digital"),
    "pixelate": CorruptionKind("made smaller and large again", "digital"),
    "jpeg_compression": CorruptionKind("compressed as JPEG", "digital", channels=(1, 3), uses=("pillow",)),
    "speckle_noise": CorruptionKind("normal noise in proportion to the value", "noise", of_the_benchmark=False),
    "gaussian_blur": CorruptionKind("a normal kernel", "blur", of_the_benchmark=False),
    "spatter": CorruptionKind(
        "drops of water or mud on the lens", "weather", channels=(3,), of_the_benchmark=False, uses=_LIBRARY[:1]
    ),
    "saturate": CorruptionKind("colours weaker or stronger", "digital", channels=(3,), of_the_benchmark=False),
}
"""Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR 2019 (arXiv
1903.12261), section 3 and appendix B, in the order of their table."""
