"""Run a whole attack, from a library or a user, on a block of samples, and count its passes from outside."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from gauntlet.attacks.registry.card import WholeAttack
from gauntlet.attacks.views.guard import guarded
from gauntlet.attacks.views.targeted_view import Towards


class Counting(nn.Module):
    """A model that counts the images of its forward and backward passes."""

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
    attack: WholeAttack, model: nn.Module, images: Tensor, labels: Tensor, seed: int, targets: Tensor | None = None
) -> tuple[Tensor, float, float]:
    """Candidates (N, C, H, W), and the mean forward and backward passes for an image.

    With `targets` (N,), none of which is the label, the samples of each target are attacked together, on the problem with two
    classes of `gauntlet.attacks.views.targeted_view`, so that the attack needs no code for targets. Raises RuntimeError if the
    attack does not return a candidate for each image.
    """
    counting = Counting(model).eval()
    if targets is None:
        candidates = _candidates(attack, counting, images, labels, seed)
    else:
        candidates = images.clone()
        for target in targets.unique().tolist():
            rows = (targets == target).nonzero().squeeze(1)
            view, label = Towards(counting, target), torch.zeros_like(labels[rows])
            candidates[rows] = _candidates(attack, view, images[rows], label, seed)
    return candidates, counting.forwards / len(images), counting.backwards / len(images)


def _candidates(attack: WholeAttack, model: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
    with guarded(model, _generators_seed(seed)):
        candidates = attack(model, images.clone(), labels.clone(), seed)
    if not isinstance(candidates, torch.Tensor) or candidates.shape != images.shape:
        shape = tuple(candidates.shape) if isinstance(candidates, torch.Tensor) else type(candidates).__name__
        raise RuntimeError(f"{attack!r} returned {shape} where images of shape {tuple(images.shape)} were attacked")
    return candidates.detach().to(images)


def _generators_seed(seed: int) -> int:
    """Seed of torch's, numpy's and Python's generators for the attack, which differs from the verifier's."""
    return int.from_bytes(hashlib.sha256(f"whole attack, seed {seed}".encode()).digest()[:4])
