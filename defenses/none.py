"""No defense: the images are unchanged."""

from __future__ import annotations

from torch import nn

from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry

ENTRY = DefenseEntry(
    DefenseCard(
        name="none",
        summary="the images as they are",
        source="the undefended baseline",
        differentiable=True,
        randomised=False,
        certificates=("Linf", "L2"),
    ),
    lambda: nn.Identity(),
)
