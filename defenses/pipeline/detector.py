"""Models with a detector, which rejects suspicious images.

`gauntlet.attacks.views.rejection_view` defines the effect of a rejection: a rejected clean image counts as misclassified, and
a rejected attacked image as no success.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn


class Score(Protocol):
    """A score of how suspicious images are; a module, so that its tensors move with the model.

    It may have a method `attack_view()` that returns a score with the same values and a useful gradient.
    """

    def __call__(self, model: Callable[[Tensor], Tensor], images: Tensor, logits: Tensor) -> Tensor:
        """Scores (N,), larger for more suspicious images, of images (N, C, H, W) with the model's logits (N, K)."""
        ...


class DetectorModel(nn.Module):
    """A model that rejects images with a score of at least `threshold`: logits and a rejection, (N, K + 1).

    The last output is the largest logit plus score − threshold: it exceeds all logits (by at least one floating-point step)
    exactly if the image is rejected, and its margin is available to attacks.
    """

    def __init__(self, model: nn.Module, score: Score, threshold: float) -> None:
        """`model`: images to logits (N, K)."""
        super().__init__()
        self.model = model
        self.score = score
        self.threshold = threshold
        # New modules are in training mode; this module takes the mode of the wrapped model.
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (N, K + 1) of images (N, C, H, W)."""
        logits = self.model(images)
        top = logits.amax(1)
        excess = self.score(self.model, images, logits).to(logits.dtype) - self.threshold
        far = torch.full_like(top, torch.inf)
        above, below = torch.nextafter(top.detach(), far), torch.nextafter(top.detach(), -far)
        rejection = torch.where(excess >= 0, torch.maximum(top + excess, above), torch.minimum(top + excess, below))
        return torch.cat([logits, rejection[:, None]], dim=1)

    def attack_view(self) -> nn.Module:
        """The model with the score's own view, if it has one."""
        view = getattr(self.score, "attack_view", None)
        return self if view is None else DetectorModel(self.model, view(), self.threshold)

    def extra_repr(self) -> str:
        """The threshold."""
        return f"threshold={self.threshold:g}"
