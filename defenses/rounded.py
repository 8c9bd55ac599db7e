"""Rounded probabilities: outputs with a few decimals (Tramèr et al., USENIX Security 2016, section 7)."""

from __future__ import annotations

from gauntlet.attacks.ops.validators import whole_number
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry
from gauntlet.defenses.pipeline.on_probabilities import OnProbabilities


def build(decimals: int = 3) -> OnProbabilities:
    """Round to `decimals`, as ART's Rounded. The gradient is zero everywhere."""
    whole_number("decimals", decimals, 1, 15)
    return OnProbabilities(lambda p: p.round(decimals=decimals))


ENTRY = DefenseEntry(
    DefenseCard(
        name="rounded",
        summary="probabilities rounded to a few decimals",
        source="Tramèr et al. 2016, arXiv 1609.02943; as ART Rounded",
        differentiable=False,
        randomised=False,
        kind="output",
    ),
    build,
)
