"""Rejection of low confidence: Hendrycks and Gimpel, "A baseline for detecting misclassified examples", ICLR 2017."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from gauntlet.attacks.ops.validators import number
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry
from gauntlet.defenses.pipeline.detector import DetectorModel


class LowConfidence(nn.Module):
    """−log of the largest probability: the same order as the paper's score, with a gradient where that saturates."""

    def forward(self, model: Callable[[Tensor], Tensor], images: Tensor, logits: Tensor) -> Tensor:
        """Scores (N,), at least 0."""
        return -logits.log_softmax(1).amax(1)


def build(confidence: float = 0.5) -> Callable[[nn.Module], DetectorModel]:
    """Reject images whose largest probability is at most `confidence`, between 0 and 1."""
    number("confidence", confidence, above=0, below=1)
    return lambda model: DetectorModel(model, LowConfidence(), -math.log(confidence))


ENTRY = DefenseEntry(
    DefenseCard(
        name="confidence_detector",
        summary="rejects where the largest probability is small",
        source="Hendrycks and Gimpel 2017, arXiv 1610.02136",
        differentiable=True,
        randomised=False,
        kind="model",
        rejects=True,
    ),
    build,
)
