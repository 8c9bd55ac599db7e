"""Modules that several masks share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from gauntlet.bench.checks.hidden_masks import MaskedNetwork

CLASSES = 10


def seen_through(network: nn.Module, before: Callable[[Tensor], Tensor] | None) -> nn.Module:
    """The network of a `MaskedNetwork` with another function before it. Raises TypeError for other modules."""
    if not isinstance(network, MaskedNetwork):
        raise TypeError(f"network is a {type(network).__name__}: give a MaskedNetwork")
    return MaskedNetwork(network.model, before, network.after)


class Committee(nn.Module):
    """Members that each see the images through a function of their own, and a function of their stacked outputs (M, N, K)."""

    def __init__(
        self,
        members: list[nn.Module],
        decide: Callable[[Tensor], Tensor],
        views: list[Callable[[Tensor], Tensor]] | None = None,
    ) -> None:
        """`views`: one for each member; None shows the image itself."""
        super().__init__()
        self.members = nn.ModuleList(members)
        self.decide = decide
        self.views = views
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (N, K)."""
        shown = [images] * len(self.members) if self.views is None else [view(images) for view in self.views]
        return self.decide(torch.stack([one(image) for one, image in zip(self.members, shown, strict=True)]))


def tempered(outputs: Tensor) -> Tensor:
    """Probabilities (N, K) at temperature 3."""
    return (outputs / 3).softmax(-1)


class Averaged(nn.Module):
    """The mean of a function of a randomised model's outputs over fresh draws: the expectation that EOT ascends.

    The default, probabilities at a high temperature, is near the share of draws that decides what the majority says.

    Athalye et al. 2018, "Synthesizing robust adversarial examples", arXiv 1707.07397.
    """

    def __init__(self, model: nn.Module, draws: int = 12, of: Callable[[Tensor], Tensor] = tempered) -> None:
        """`of`: function of the outputs (N, K) of a draw."""
        super().__init__()
        self.model = model
        self.draws = draws
        self.of = of
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (N, K)."""
        outputs: Tensor = self.model(images.repeat(self.draws, *[1] * (images.dim() - 1)))
        return self.of(outputs).view(self.draws, len(images), -1).mean(0)


class Jitter(nn.Module):
    """A model on images with Gaussian noise from torch's global generator."""

    def __init__(self, model: nn.Module, size: float) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (N, K)."""
        outputs: Tensor = self.model(images + self.size * torch.randn_like(images))
        return outputs


def votes(outputs: Tensor) -> Tensor:
    """The share of members (M, N, K) that votes for each class, (N, K)."""
    return one_hot(outputs.argmax(-1), outputs.shape[-1]).float().mean(0)


def soft_votes(outputs: Tensor) -> Tensor:
    """The mean probability of each class over members (M, N, K), (N, K)."""
    return outputs.softmax(-1).mean(0)


def labels_only(outputs: Tensor) -> Tensor:
    """The one-hot label of outputs (N, K)."""
    return one_hot(outputs.argmax(1), outputs.shape[1]).float()


def levels(values: Tensor, count: int) -> Tensor:
    """Values in [0, 1] rounded to `count` steps."""
    return (count * values).round() / count
