"""MART: Wang et al., "Improving adversarial robustness requires revisiting misclassified examples", ICLR 2020."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.defenses.training.inner_attack import ascend, evaluating
from gauntlet.defenses.training.recipe import Recipe

STEPS = 10
BETA = 6.0


def loss(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator, done: float = 1.0
) -> Tensor:
    """BCE(f(x'), y) + beta · KL(f(x) ‖ f(x')) · (1 − f_y(x)), where x' maximises the cross-entropy (algorithm 1).

    The boosted cross-entropy BCE adds -log(1 − the largest probability of a wrong class), which rewards a large margin. As
    in the authors' code (YisenWang/MART, mart.py) x' starts at x with Gaussian noise of 0.001 and is computed in eval mode,
    the last factor is not detached, and 1.0001 keeps the logarithm finite.
    """
    with evaluating(model):
        point = x + 0.001 * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        for _ in range(STEPS):
            point = ascend(
                point, x, lambda at: cross_entropy(model(at), y, reduction="sum"), 2.5 * threat.eps / STEPS, threat
            )
    clean, logits = softmax(model(x), dim=1), model(point)
    label = y[:, None]
    wrong = softmax(logits, dim=1).scatter(1, label, 0).amax(1)
    boosted = cross_entropy(logits, y) - (1.0001 - wrong).log().mean()
    divergence = kl_div(log_softmax(logits, dim=1), clean, reduction="none").sum(1)
    doubt = 1 - clean.gather(1, label)[:, 0]
    return boosted + BETA * (divergence * doubt).mean()


RECIPE = Recipe(
    name="mart",
    summary="MART, beta 6, 10 steps",
    source="Wang et al. 2020, openreview rklOg6EFwS; Adam in place of SGD, steps of 2.5 eps / 10",
    loss=loss,
)
