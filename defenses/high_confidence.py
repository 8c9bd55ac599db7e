"""High confidence only: probabilities below a cutoff become 0, as in ART."""

from __future__ import annotations

from gauntlet.attacks.ops.validators import number
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry
from gauntlet.defenses.pipeline.on_probabilities import OnProbabilities, through_art
from gauntlet.defenses.pipeline.through_numpy import art_postprocessor


def build(cutoff: float = 0.25) -> OnProbabilities:
    """`cutoff`: the least probability that is kept. If all are below it, all are 0, and the first class is predicted."""
    number("cutoff", cutoff, above=0, below=1)
    return through_art(art_postprocessor("HighConfidence")(cutoff=cutoff))


ENTRY = DefenseEntry(
    DefenseCard(
        name="high_confidence",
        summary="probabilities below a cutoff become 0",
        source="ART HighConfidence",
        library="adversarial-robustness-toolbox",
        differentiable=False,
        randomised=False,
        kind="output",
    ),
    build,
)
