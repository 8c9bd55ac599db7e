"""Logits times a constant: not a real defense, but it masks the gradients of the cross-entropy.

The softmax saturates, and in float32 the gradient is exactly zero: the simplest form of the effect of defensive distillation
(Papernot et al., IEEE S&P 2016, with a temperature of 100; broken by Carlini and Wagner 2016, arXiv 1607.04311, section 4).
Predictions and exact robustness are those of the model. It serves to test attacks and checks.
"""

from __future__ import annotations

from torch import Tensor, nn

from gauntlet.attacks.ops.validators import number
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry


class ScaledLogits(nn.Module):
    """Logits times `factor`."""

    def __init__(self, factor: float) -> None:
        """`factor`: multiplier of the logits."""
        super().__init__()
        self.factor = factor

    def forward(self, logits: Tensor) -> Tensor:
        """Scaled logits (N, K)."""
        return self.factor * logits

    def extra_repr(self) -> str:
        """The factor."""
        return f"factor={self.factor:g}"


def build(factor: float = 1000.0) -> ScaledLogits:
    """`factor`: multiplier of the logits, up to 1e6."""
    number("factor", factor, above=0, below=1e6 + 1)
    return ScaledLogits(float(factor))


ENTRY = DefenseEntry(
    DefenseCard(
        name="scaled",
        summary="logits times a constant, so that the softmax saturates (planted)",
        source="Carlini and Wagner 2016, arXiv 1607.04311, section 4",
        differentiable=True,
        randomised=False,
        kind="output",
    ),
    build,
)
