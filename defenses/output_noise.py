"""Gaussian noise on the output probabilities, as ART's GaussianNoise.

Like other output defenses it is meant against model stealing. ART's implementation is not used: its noise comes from NumPy's
global generator, a single row that does not sum to 1 disables the normalisation of the batch, and it divides by 0 if all
entries of a row are below 0.
"""

from __future__ import annotations

from torch import Tensor

from gauntlet.attacks.ops.validators import positive
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry
from gauntlet.defenses.pipeline.on_probabilities import OnProbabilities
from gauntlet.defenses.pipeline.randomness import OUTPUT_NOISE, draws_for


def build(scale: float = 0.2) -> OnProbabilities:
    """`scale`: standard deviation. Entries below 0 become 0, and rows sum to 1 unless all entries are 0."""
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
