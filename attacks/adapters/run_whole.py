"""Run a whole attack, from a library or a user, on a block of samples, and count its passes from outside."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.input_gradient import input_gradient
from gauntlet.attacks.registry.card import WholeAttack
from gauntlet.attacks.solving.oracle import NO_GRADIENT, AttackError
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
    attack does not return a candidate for each image, and AttackError if it fails where no gradient reaches the input.
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
    try:
        with guarded(model, _generators_seed(seed), foreign=True):
            candidates = attack(model, images.clone(), labels.clone(), seed)
    except RuntimeError as error:
        if not _reached_by_gradients(model, images[:1]):
            raise AttackError(NO_GRADIENT) from error
        raise
    if not isinstance(candidates, torch.Tensor) or candidates.shape != images.shape:
        shape = tuple(candidates.shape) if isinstance(candidates, torch.Tensor) else type(candidates).__name__
        raise RuntimeError(f"{attack!r} returned {shape} where images of shape {tuple(images.shape)} were attacked")
    return candidates.detach().to(images)


def _reached_by_gradients(model: nn.Module, image: Tensor) -> bool:
    """Whether a gradient of the logits reaches the image (1, C, H, W); True, too, where the model itself fails."""
    point = image.detach().clone().requires_grad_()
    try:
        with guarded(model, 0), torch.enable_grad():
            return input_gradient(model(point), point) is not None
    except RuntimeError:
        return True


def _generators_seed(seed: int) -> int:
    """Seed of torch's, numpy's and Python's generators for the attack, which differs from the verifier's."""
    return int.from_bytes(hashlib.sha256(f"whole attack, seed {seed}".encode()).digest()[:4])
