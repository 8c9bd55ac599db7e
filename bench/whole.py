"""Running a whole attack of another library on one block, with its passes counted from outside."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gauntlet.attacks.card import WholeAttack


class Counting(nn.Module):
    """Passes every call on, counting images forward and backward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards = 0
        self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W)."""
        self.forwards += len(x)
        logits: Tensor = self.model(x)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def run_whole(
    attack: WholeAttack, model: nn.Module, images: Tensor, labels: Tensor, seed: int
) -> tuple[Tensor, float, float]:
    """Candidates (N, C, H, W), and the mean forward and backward passes for an image.

    Raises RuntimeError where the attack returns something that is not one candidate for each image.
    """
    counting = Counting(model).eval()
    candidates = attack(counting, images, labels, seed)
    if not isinstance(candidates, torch.Tensor) or candidates.shape != images.shape:
        shape = tuple(candidates.shape) if isinstance(candidates, torch.Tensor) else type(candidates).__name__
        raise RuntimeError(f"{attack!r} returned {shape} where images of shape {tuple(images.shape)} were attacked")
    candidates = candidates.detach().to(images)
    return candidates, counting.forwards / len(images), counting.backwards / len(images)
