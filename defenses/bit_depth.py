"""Bit-depth reduction, the first feature squeezer of Xu, Evans, Qi (NDSS 2018, section III-A), as ART implements it."""

from __future__ import annotations

from gauntlet.attacks.ops.validators import whole_number
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry
from gauntlet.defenses.pipeline.through_numpy import ThroughNumpy, art_preprocessor


def build(bits: int = 3) -> ThroughNumpy:
    """Round every value to one of 2**bits levels, including 0 and 1 (halves to the even level)."""
    whole_number("bits", bits, 1, 16)
    return ThroughNumpy(art_preprocessor("FeatureSqueezing")(clip_values=(0.0, 1.0), bit_depth=bits))


ENTRY = DefenseEntry(
    DefenseCard(
        name="bit_depth",
        summary="rounds every value to 2**bits levels",
        source="Xu et al. 2018, arXiv 1704.01155; ART FeatureSqueezing",
        library="adversarial-robustness-toolbox",
        differentiable=False,
        randomised=False,
    ),
    build,
)
