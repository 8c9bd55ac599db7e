"""Models with a detector: an image that looks suspicious is rejected.

How rejection counts is defined in `gauntlet.attacks.views.rejection_view`: a clean image that is rejected is not classified
correctly, and an attacked image that is rejected is no success.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn


class Score(Protocol):
    """How suspicious images are: a module, so that what it holds moves with the model.

    It may have a method `attack_view()` that gives a score of the same values with a useful gradient.
    """

    def __call__(self, model: Callable[[Tensor], Tensor], images: Tensor, logits: Tensor) -> Tensor:
        """(N,), larger is more suspicious, for images (N, C, H, W) and the model's logits (N, K) of them."""
        ...


class DetectorModel(nn.Module):
    """A model that rejects what scores `threshold` or more: logits and a rejection, (N, K + 1).

    The last output is the largest logit plus score − threshold. So it is larger than all logits exactly where the image is
    rejected (by one step of floating-point numbers at least), and attacks see by how much.
    """

    def __init__(self, model: nn.Module, score: Score, threshold: float) -> None:
        """`model`: images to logits (N, K)."""
        super().__init__()
        self.model = model
        self.score = score
        self.threshold = threshold
        # A module is born in training mode; this one follows what it wraps.
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
        """Itself, with the score's own view where it has one."""
        view = getattr(self.score, "attack_view", None)
        return self if view is None else DetectorModel(self.model, view(), self.threshold)

    def extra_repr(self) -> str:
        """The threshold."""
        return f"threshold={self.threshold:g}"
