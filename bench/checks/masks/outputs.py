"""Masks of one network: functions of its outputs, its images, or its backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gauntlet.bench.checks.hidden_masks import MaskedNetwork, undefended
from gauntlet.bench.checks.masks.parts import labels_only, levels, seen_through
from gauntlet.bench.checks.masks.training import trained
from gauntlet.bench.models.cnn import cnn


def hard_labels() -> nn.Module:
    """One-hot labels."""
    return MaskedNetwork(undefended(), after=labels_only)


def saturated_probabilities() -> nn.Module:
    """Probabilities at a temperature so low that they round to 0 and 1."""
    return MaskedNetwork(undefended(), after=lambda logits: (1e4 * logits).softmax(1))


def flattened_logits() -> nn.Module:
    """Logits divided so much that the differences sink into the rounding of the loss."""
    return MaskedNetwork(undefended(), after=lambda logits: 1 + 1e-6 * logits)


def numpy_logits() -> nn.Module:
    """Logits that leave torch and come back."""
    return MaskedNetwork(undefended(), after=_through_numpy)


def _through_numpy(logits: Tensor) -> Tensor:
    array = logits.detach().cpu().numpy().copy()
    return torch.from_numpy(array).to(logits.device)


def bytes_in() -> nn.Module:
    """Images stored as bytes, as in a file."""
    return MaskedNetwork(undefended(), before=lambda images: (255 * images).to(torch.uint8).to(images.dtype) / 255)


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """The values."""
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Of another channel and place."""
        return gradient.flip(1).roll((1, 2), (2, 3))


class _FalseRounding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """Eight steps."""
        ctx.save_for_backward(values)
        return levels(values, 8)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """As if the values swung about the steps."""
        (values,) = ctx.saved_tensors
        return gradient * torch.cos(torch.pi * 8 * values)


class FalseBackward(nn.Module):
    """A sequential network whose activations behind `place` layers pass through a function with a false derivative."""

    def __init__(self, network: nn.Module, place: int) -> None:
        super().__init__()
        layers = list(network.children())
        self.first = nn.Sequential(*layers[:place])
        self.second = nn.Sequential(*layers[place:])
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K)."""
        logits: Tensor = self.second(_Reversed.apply(self.first(images)))  # type: ignore[no-untyped-call]
        return logits


def false_gradient() -> nn.Module:
    """An autograd function inside the network that passes on the gradients of other activations."""
    return FalseBackward(undefended(), 2)


def _falsely_rounded(images: Tensor) -> Tensor:
    rounded: Tensor = _FalseRounding.apply(images)  # type: ignore[no-untyped-call]
    return rounded


def false_rounding() -> nn.Module:
    """Pixels of eight steps, whose rounding claims a derivative that changes its sign from step to step."""
    return MaskedNetwork(undefended(), before=_falsely_rounded)


def _smooth_labels(outputs: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(outputs, labels, label_smoothing=0.6)


def _smoothed() -> nn.Module:
    return trained(cnn, loss=_smooth_labels)


def label_smoothing() -> nn.Module:
    """Trained with smooth labels; probabilities of one decimal place are given out."""
    return MaskedNetwork(_smoothed(), None, lambda logits: levels(logits.softmax(1), 10))


def label_smoothing_twin() -> nn.Module:
    """Its logits."""
    return _smoothed()


_MIDDLES = (0.1, 0.3, 0.5, 0.7, 0.9)


def _bank(images: Tensor, slope: float) -> Tensor:
    middles = images.new_tensor(_MIDDLES)[:, None, None]
    return (slope * (images - middles)).sigmoid()


def steep(images: Tensor) -> Tensor:
    """Images (N, 1, H, W) as (N, 5, H, W), through five sigmoids that are nearly steps."""
    return _bank(images, 400)


def slanted(images: Tensor) -> Tensor:
    """The same with slopes that meet."""
    return _bank(images, 20)


def _steep_network() -> nn.Module:
    return MaskedNetwork(nn.Sequential(nn.Conv2d(len(_MIDDLES), 16, 3, padding=1), *list(cnn().children())[1:]), steep)


def saturated_input() -> nn.Module:
    """Pixels through sigmoids so steep that their derivatives are 0 almost everywhere."""
    return trained(_steep_network)


def saturated_input_twin() -> nn.Module:
    """Sigmoids of a lower slope."""
    return seen_through(trained(_steep_network), slanted)
