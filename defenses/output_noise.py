"""Gaussian noise on the probabilities that are given out, as ART's GaussianNoise.

Made, like other output defenses, against the stealing of models through their answers. ART's own is not used: its noise comes
from NumPy's global generator, one row that does not sum to 1 leaves the whole batch without normalisation, and where all
entries fall below 0 it divides by 0.
"""

from __future__ import annotations

from torch import Tensor

from gauntlet.attacks.ops.validators import positive
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry
from gauntlet.defenses.pipeline.on_probabilities import OnProbabilities
from gauntlet.defenses.pipeline.randomness import OUTPUT_NOISE, draws_for


def build(scale: float = 0.2) -> OnProbabilities:
    """`scale`: standard deviation. Entries below 0 become 0, and rows sum to 1 unless all of theirs are 0."""
    positive("scale", scale)

    def change(p: Tensor) -> Tensor:
        noise = draws_for(p).normal(p.shape[1:], tag=OUTPUT_NOISE, dtype=p.dtype)
        noisy = (p + scale * noise).clamp_min(0)
        total = noisy.sum(1, keepdim=True)
        return noisy / total.where(total > 0, 1)

    return OnProbabilities(change)


ENTRY = DefenseEntry(
    DefenseCard(
        name="output_noise",
        summary="adds Gaussian noise to the probabilities",
        source="as ART GaussianNoise",
        differentiable=True,
        randomised=True,
        kind="output",
    ),
    build,
)
