"""Attacks towards one class, as attacks on a problem of two: the target against all other classes together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.losses import largest_other


def towards(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits (N, 2) of logits (N, K) and targets (N,): the largest of the other classes, then the target's.

    With 0 for every label, a sample is misclassified (the first of the largest logits is not at 0) exactly where the target
    is the prediction. Where the target shares the largest logit and comes first in it, column 0 is lowered to the number
    below it. Where others share the largest logit among them, its gradient is the mean of theirs.

    Departure from targeted attacks as they are published: those descend the cross-entropy of the target among all K classes
    (or a margin to the label alone). With two classes every loss of an attack, cross-entropy too, rises with the target's
    margin over the best of the others, z_t − max_{j≠t} z_j, and its gradient has the direction of that margin's: what
    decides success, and f6 of Carlini and Wagner 2017, section V.A, targeted. Losses that need three or four classes fall
    back to the margin.
    """
    own, rest = logits.gather(1, targets[:, None]).squeeze(1), largest_other(logits, targets)
    tied = (own == rest) & (logits.argmax(1) == targets)
    lower = torch.nextafter(rest.detach(), torch.full_like(rest, -torch.inf))
    # The difference is exact, and a constant to autograd.
    return torch.stack([torch.where(tied, rest - (rest.detach() - lower), rest), own], dim=1)


class Towards(nn.Module):
    """A model as an attack towards `target` sees it: logits (N, 2) as `towards` gives them, to be attacked with label 0."""

    def __init__(self, model: nn.Module, target: int) -> None:
        """Puts the problem of two classes behind `model`."""
        super().__init__()
        self.model = model
        self.target = target
        # A module is born in training mode; this one follows what it wraps.
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 2) of images (N, C, H, W) in [0, 1]."""
        logits: Tensor = self.model(images)
        return towards(logits, torch.full((len(logits),), self.target, dtype=torch.int64, device=logits.device))
