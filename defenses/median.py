"""Median smoothing, the second feature squeezer of Xu, Evans, Qi (NDSS 2018, section III-B), as ART implements it."""

from __future__ import annotations

from gauntlet.defenses.card import DefenseCard, DefenseEntry
from gauntlet.defenses.through_numpy import ThroughNumpy, art_preprocessor, whole_number


def build(window: int = 3) -> ThroughNumpy:
    """The median of each pixel's window × window neighbourhood, each channel by itself, borders reflected."""
    whole_number("window", window, 1, 31)
    smoothing = art_preprocessor("SpatialSmoothing")
    return ThroughNumpy(smoothing(window_size=window, channels_first=True, clip_values=(0.0, 1.0)))


ENTRY = DefenseEntry(
    DefenseCard(
        name="median",
        summary="median filter over a square window",
        source="Xu et al. 2018, arXiv 1704.01155; ART SpatialSmoothing",
        differentiable=False,
        randomised=False,
    ),
    build,
)
