"""Ensembles: combined outputs of several models, or of a model on several views of the image.

Averaging models is one of the oldest defenses (for instance Strauss et al. 2017, arXiv 1709.03423). That an ensemble of weak
defenses is not strong was shown by He et al., "Adversarial example defenses: ensembles of weak defenses are not strong" (WOOT
2017, arXiv 1706.04701).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gauntlet.attacks.ops.validators import one_of, whole_number
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry

COMBINATIONS = ("logits", "probabilities", "votes")


class EnsembleModel(nn.Module):
    """Members that map images to logits (N, K) of the same classes, combined.

    `combine`: `logits` is the mean of the logits; `probabilities` the logarithm of the mean softmax; `votes` the number of
    members that predict each class (ties go to the first class), with `probabilities` as its view for gradient attacks.
    """

    def __init__(self, members: Sequence[nn.Module], combine: str = "logits") -> None:
        """Raises ValueError without members, and for an unknown combination."""
        super().__init__()
        one_of("combine", combine, COMBINATIONS)
        if not members:
            raise ValueError("members is empty: give at least one model")
        self.members = nn.ModuleList(members)
        self.combine = combine
        # New modules are in training mode; this module takes the mode of its members.
        self.training = members[0].training

    def forward(self, images: Tensor) -> Tensor:
        """Combined scores (N, K) of images (N, C, H, W)."""
        outputs = torch.stack([member(images) for member in self.members])
        if self.combine == "logits":
            return outputs.mean(0)
        if self.combine == "votes":
            return functional.one_hot(outputs.argmax(2), outputs.shape[2]).sum(0).to(outputs.dtype)
        return torch.logsumexp(outputs.log_softmax(2), 0) - torch.tensor(len(outputs)).log().to(outputs)

    def attack_view(self) -> nn.Module:
        """Itself, or for votes the ensemble of probabilities."""
        return EnsembleModel(list(self.members), "probabilities") if self.combine == "votes" else self


class _View(nn.Module):
    """A model on a flipped and shifted image, with edges repeated."""

    def __init__(self, model: nn.Module, down: int, across: int, mirrored: bool) -> None:
        super().__init__()
        self.model = model
        self.down = down
        self.across = across
        self.mirrored = mirrored
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        x = images.flip(3) if self.mirrored else images
        rows = (torch.arange(x.shape[2], device=x.device) - self.down).clamp(0, x.shape[2] - 1)
        columns = (torch.arange(x.shape[3], device=x.device) - self.across).clamp(0, x.shape[3] - 1)
        logits: Tensor = self.model(x[:, :, rows][:, :, :, columns])
        return logits


def build(shift: int = 1, flip: bool = False, combine: str = "probabilities") -> Callable[[nn.Module], EnsembleModel]:
    """A model on five or ten views: the image, and the image shifted by `shift` pixels up, down, left and right.

    `shift`: 0 for no shift. `flip`: add the horizontally flipped views, for photographs but not digits. `combine`: see
    `EnsembleModel`, which also takes several models. For noisy views see `smoothing`.
    """
    whole_number("shift", shift, 0, 1_000)
    if not isinstance(flip, bool):
        raise ValueError(f"flip={flip!r} must be True or False")
    one_of("combine", combine, COMBINATIONS)
    moves = [(0, 0)] + ([(-shift, 0), (shift, 0), (0, -shift), (0, shift)] if shift else [])
    mirrors = (False, True) if flip else (False,)

    def wrap(model: nn.Module) -> EnsembleModel:
        return EnsembleModel([_View(model, *move, mirror) for mirror in mirrors for move in moves], combine)

    return wrap


ENTRY = DefenseEntry(
    DefenseCard(
        name="ensemble",
        summary="one model on shifted (and mirrored) views, answers averaged or counted",
        source="test-time augmentation; Strauss et al. 2017, arXiv 1709.03423",
        differentiable=True,
        randomised=False,
        kind="model",
    ),
    build,
)
