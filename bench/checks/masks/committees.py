"""Masks that let several networks decide: votes, detectors, code words, and members drawn by lot."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits, one_hot, pad

from gauntlet.bench.checks.hidden_masks import MaskedNetwork
from gauntlet.bench.checks.masks.parts import CLASSES, Committee, levels, seen_through, soft_votes, votes
from gauntlet.bench.checks.masks.training import member, trained
from gauntlet.bench.models.cnn import cnn

_SEEDS = (1, 2, 3, 4, 5)


def majority_vote() -> nn.Module:
    """Shares of votes of five networks."""
    return Committee([member(seed) for seed in _SEEDS], votes)


def majority_vote_twin() -> nn.Module:
    """The mean of the five networks' probabilities."""
    return Committee([member(seed) for seed in _SEEDS], soft_votes)


class DrawnMember(nn.Module):
    """Each image is classified by one of the members, drawn in each pass."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K)."""
        drawn = torch.randint(len(self.members), (len(images),), device=images.device)
        answers = torch.stack([one(images) for one in self.members])
        return answers[drawn, torch.arange(len(images), device=images.device)]


def drawn_member() -> nn.Module:
    """One of five networks answers, by lot."""
    return DrawnMember([member(seed) for seed in _SEEDS])


def _mean(outputs: Tensor) -> Tensor:
    return outputs.mean(0)


def drawn_member_twin() -> nn.Module:
    """The mean of the five networks' logits."""
    return Committee([member(seed) for seed in _SEEDS], _mean)


_HIDDEN = 40


class Detectors(nn.Sequential):
    """Ten separate networks, one for each class, of 40 hidden units and one score; above 0: this class."""

    def __init__(self) -> None:
        together = CLASSES * _HIDDEN
        super().__init__(
            nn.Flatten(),
            nn.Linear(64, together),
            nn.ReLU(),
            nn.Unflatten(1, (together, 1)),
            nn.Conv1d(together, CLASSES, 1, groups=CLASSES),
            nn.Flatten(),
        )


def _each_class(outputs: Tensor, labels: Tensor) -> Tensor:
    return CLASSES * binary_cross_entropy_with_logits(outputs, one_hot(labels, CLASSES).to(outputs.dtype))


def _flags(scores: Tensor) -> Tensor:
    return (scores > 0).to(scores.dtype)


def binary_detectors() -> nn.Module:
    """Whether each of ten detectors is above its threshold."""
    return MaskedNetwork(trained(Detectors, loss=_each_class, epochs=60), None, _flags)


def binary_detectors_twin() -> nn.Module:
    """The scores of the detectors."""
    return trained(Detectors, loss=_each_class, epochs=60)


_BITS = 15


def code_book() -> Tensor:
    """Words of 15 signs, (10, 15), far from each other: columns of a Hadamard matrix."""
    matrix = torch.ones(1, 1)
    for _ in range(4):
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix[1 : CLASSES + 1, 1:]


class CodeNetwork(nn.Module):
    """The zoo's network with 15 outputs, one for each sign of a code word."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(*list(cnn().children())[:-1], nn.Linear(100, _BITS))

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, 15)."""
        scores: Tensor = self.network(images)
        return scores


def _each_bit(outputs: Tensor, labels: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(outputs, (code_book()[labels] + 1) / 2)


def _agreement(scores: Tensor) -> Tensor:
    return scores.sign() @ code_book().T.to(scores)


def _soft_agreement(scores: Tensor) -> Tensor:
    return (scores / 4).tanh() @ code_book().T.to(scores)


def code_words() -> nn.Module:
    """The number of signs that agree with each class's word."""
    return MaskedNetwork(trained(CodeNetwork, loss=_each_bit), None, _agreement)


def code_words_twin() -> nn.Module:
    """The same with smooth signs."""
    return MaskedNetwork(trained(CodeNetwork, loss=_each_bit), None, _soft_agreement)


def _blurred(images: Tensor) -> Tensor:
    return avg_pool2d(pad(images, (0, 1, 0, 1)), 2, 1)


def _coarse(images: Tensor) -> Tensor:
    return levels(images, 3)


def _coarse_network() -> nn.Module:
    return MaskedNetwork(cnn(), _coarse)


def _blurred_network() -> nn.Module:
    return MaskedNetwork(cnn(), _blurred)


def _uncoarsened() -> nn.Module:
    return seen_through(trained(_coarse_network), None)


def _weighted(outputs: Tensor) -> Tensor:
    weights = torch.tensor([1.0, 1.25, 0.75, 0.5], device=outputs.device)[:, None, None]
    return (weights * one_hot(outputs.argmax(-1), CLASSES)).sum(0)


def _soft_weighted(outputs: Tensor) -> Tensor:
    weights = torch.tensor([1.0, 1.25, 0.75, 0.5], device=outputs.device)[:, None, None]
    return (weights * outputs.softmax(-1)).sum(0)


def defensive_ensemble() -> nn.Module:
    """Weighted labels of networks that see the image as it is, coarse or blurred."""
    members = [member(1), trained(_coarse_network), trained(_blurred_network), member(2)]
    return Committee(members, _weighted)


def defensive_ensemble_twin() -> nn.Module:
    """Weighted probabilities, without the coarse steps."""
    members = [member(1), _uncoarsened(), trained(_blurred_network), member(2)]
    return Committee(members, _soft_weighted)
