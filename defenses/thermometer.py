"""Thermometer encoding: Buckman et al., ICLR 2018, section 3, as ART encodes it, and decoded again.

A value becomes a vector of `levels` entries, with a one for each level that it exceeds; small changes do not reach a network
that is trained on such vectors. Here the code is decoded for networks that take images, so that the quantisation alone acts;
the published defense also trains the network on the code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gauntlet.attacks.ops.validators import whole_number
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry
from gauntlet.defenses.pipeline.through_numpy import ThroughNumpy, art_preprocessor


class Thermometer:
    """Arrays (N, C, H, W) encoded by ART and decoded: a code of k ones of `levels` is the value (k − 1) / (levels − 1)."""

    def __init__(self, encode: Callable[[Any], tuple[Any, Any]], levels: int) -> None:
        """`encode`: ART's encoder for arrays (N, 1), with `levels` entries per value."""
        self.encode = encode
        self.levels = levels

    def __call__(self, array: Any) -> tuple[Any, None]:
        """Values of the same shape and dtype."""
        # In one column, since ART loops over pixels in Python and vectorises over rows.
        code, _ = self.encode(array.reshape(1, -1))
        ones = code.reshape(*array.shape, self.levels).sum(-1)
        return ((ones - 1) / (self.levels - 1)).astype(array.dtype), None


def build(levels: int = 10) -> ThroughNumpy:
    """`levels`: entries of the code. 0 stays 0 and 1 stays 1; a value moves by 1 / levels at most."""
    whole_number("levels", levels, 2, 256)
    encoder = art_preprocessor("ThermometerEncoding")
    return ThroughNumpy(Thermometer(encoder((0.0, 1.0), num_space=levels, channels_first=True), levels))


ENTRY = DefenseEntry(
    DefenseCard(
        name="thermometer",
        summary="thermometer encoding, decoded for a model that takes images",
        source="Buckman et al. 2018, openreview S18Su--CW; ART ThermometerEncoding",
        library="adversarial-robustness-toolbox",
        differentiable=False,
        randomised=False,
    ),
    build,
)
