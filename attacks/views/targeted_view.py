"""Attacks towards a class, as attacks on a problem with two classes: the target against all other classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.losses import largest_other


def towards(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits (N, 2) from logits (N, K) and targets (N,): the largest logit of the other classes, then the target's.

    With 0 for every label, a sample is misclassified (the first of the largest logits is not at 0) exactly if the target is the
    prediction. If the target shares the largest logit and comes first, column 0 is lowered to the next smaller number. If other
    classes share the largest logit among them, its gradient is the mean of theirs.

    Departure from published targeted attacks, which descend the cross-entropy of the target among all K classes (or a margin to
    the label alone): with two classes every loss, cross-entropy too, rises with the target's margin over the best other class,
    z_t − max_{j≠t} z_j, and its gradient has the direction of that margin's gradient. This margin decides success; it is f6 of
    Carlini and Wagner 2017, section V.A, targeted. Losses that need three or four classes fall back to the margin.
    """
    own, rest = logits.gather(1, targets[:, None]).squeeze(1), largest_other(logits, targets)
    tied = (own == rest) & (logits.argmax(1) == targets)
    lower = torch.nextafter(rest.detach(), torch.full_like(rest, -torch.inf))
    # The difference is exact, and a constant to autograd.
    return torch.stack([torch.where(tied, rest - (rest.detach() - lower), rest), own], dim=1)


class Towards(nn.Module):
    """A model as an attack towards `target` sees it: logits (N, 2) from `towards`, to be attacked with label 0."""

    def __init__(self, model: nn.Module, target: int) -> None:
        """Wraps `model`."""
        super().__init__()
        self.model = model
        self.target = target
        # A new module is in training mode; this module has the mode of the model.
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 2) of images (N, C, H, W) in [0, 1]."""
        logits: Tensor = self.model(images)
        return towards(logits, torch.full((len(logits),), self.target, dtype=torch.int64, device=logits.device))
