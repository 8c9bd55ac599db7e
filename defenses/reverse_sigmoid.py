"""Reverse sigmoid: Lee et al., "Defending against machine learning model stealing attacks using deceptive perturbations", 2018.

The defense is meant against model stealing. It subtracts a sigmoid of each probability's logit, so that confident outputs look
less confident, and the slope of the output no longer points in the direction of a higher probability.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gauntlet.attacks.ops.validators import positive
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry
from gauntlet.defenses.pipeline.on_probabilities import OnProbabilities

_CLIP = 1e-9
"""ART's value. In float32 its upper limit rounds to 1, with an infinite logit and a NaN gradient; here it is float64."""


def build(beta: float = 1.0, gamma: float = 0.1) -> OnProbabilities:
    """p ← normalised clip(p − beta · (sigmoid(gamma · logit(p)) − 1/2)), equations 3 and 4, as ART's ReverseSigmoid.

    `beta`: size of the perturbation; `gamma`: its growth with confidence. Needs at least two classes.
    """
    positive("beta", beta)
    positive("gamma", gamma)

    def change(p: Tensor) -> Tensor:
        inner = p.clamp(_CLIP, 1 - _CLIP)
        perturbed = (p - beta * (torch.sigmoid(gamma * torch.logit(inner)) - 0.5)).clamp(0, 1)
        return perturbed / perturbed.sum(1, keepdim=True)

    return OnProbabilities(change)


ENTRY = DefenseEntry(
    DefenseCard(
        name="reverse_sigmoid",
        summary="adds a reverse sigmoid to the probabilities",
        source="Lee et al. 2018, arXiv 1806.00054; as ART ReverseSigmoid",
        differentiable=True,
        randomised=False,
        kind="output",
    ),
    build,
)
