"""Residual networks for small images whose depth and widths are read from their weights.

He et al., "Identity mappings in deep residual networks", 2016 (arXiv 1603.05027); Zagoruyko and Komodakis, "Wide residual
networks", 2016 (arXiv 1605.07146).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["relu", "swish"]


@dataclass(frozen=True)
class Variant:
    """What the weights do not say of a network."""

    activation: Activation = "relu"
    activated_shortcut: bool = True
    """Before-activation blocks: whether a convolution on the shortcut sees the activated input."""
    one_sided: bool = False
    """Whether convolutions with stride 2 pad at the right and below alone, as `SAME` of TensorFlow does."""
    activation_first: bool = True
    """Whether normalisation and activation come before each convolution (2016), or after it (2015)."""


class ResidualNetwork(nn.Module):
    """Convolution, groups of residual blocks, mean over all places, linear layer: images (N, C, H, W) to logits (N, K).

    `state`: tensors named `stem.weight`, `groups.G.B.NAME.…`, `norm.…` and `head.…`, whose shapes decide the layers; groups after
    the first begin with stride 2. Raises KeyError, ValueError or RuntimeError for a state that is no such network.
    """

    def __init__(self, state: Mapping[str, Tensor], variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        self.stem = _convolution(state, "stem", 1, variant)
        kind = _Before if variant.activation_first else _After
        self.groups = nn.ModuleList(
            nn.Sequential(
                *(
                    kind(state, f"groups.{group}.{block}", 2 if group and not block else 1, variant)
                    for block in range(count)
                )
            )
            for group, count in enumerate(_block_counts(state))
        )
        self.norm = _norm(state, "norm") if "norm.weight" in state or not variant.activation_first else None
        classes, width = state["head.weight"].shape
        self.head = nn.Linear(width, classes, bias="head.bias" in state)
        self.load_state_dict(dict(state))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W)."""
        x = self.stem(images)
        if self.norm is not None and not self.variant.activation_first:
            x = _activated(self.norm(x), self.variant)
        for group in self.groups:
            x = group(x)
        if self.norm is not None and self.variant.activation_first:
            x = _activated(self.norm(x), self.variant)
        logits: Tensor = self.head(functional.avg_pool2d(x, x.shape[2:]).flatten(1))
        return logits


def _block_counts(state: Mapping[str, Tensor]) -> list[int]:
    """The number of blocks in each group. Raises ValueError where one is missing."""
    found = {tuple(map(int, name.split(".")[1:3])) for name in state if name.startswith("groups.")}
    counts = Counter(group for group, _ in found)
    if found != {(group, block) for group in range(len(counts)) for block in range(counts[group])}:
        raise ValueError("blocks are missing")
    return [counts[group] for group in range(len(counts))]


class _Before(nn.Module):
    """A block with normalisation and activation before each of its two convolutions."""

    def __init__(self, state: Mapping[str, Tensor], place: str, stride: int, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        self.norm1, self.norm2 = (_norm(state, f"{place}.norm{number}") for number in (1, 2))
        self.conv1 = _convolution(state, f"{place}.conv1", stride, variant)
        self.conv2 = _convolution(state, f"{place}.conv2", 1, variant)
        shortcut = f"{place}.shortcut"
        self.shortcut = _convolution(state, shortcut, stride, variant) if f"{shortcut}.weight" in state else None

    def forward(self, x: Tensor) -> Tensor:
        first = _activated(self.norm1(x), self.variant)
        out: Tensor = self.conv2(_activated(self.norm2(self.conv1(first)), self.variant))
        if self.shortcut is not None:
            x = self.shortcut(first if self.variant.activated_shortcut else x)
        return out + x


class _After(nn.Module):
    """A block of two or three convolutions with normalisation and activation after each; the last activation is after the sum."""

    def __init__(self, state: Mapping[str, Tensor], place: str, stride: int, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        self.deep = f"{place}.conv3.weight" in state
        self.norm1, self.norm2 = (_norm(state, f"{place}.norm{number}") for number in (1, 2))
        self.conv1 = _convolution(state, f"{place}.conv1", 1 if self.deep else stride, variant)
        self.conv2 = _convolution(state, f"{place}.conv2", stride if self.deep else 1, variant)
        if self.deep:
            self.norm3, self.conv3 = _norm(state, f"{place}.norm3"), _convolution(state, f"{place}.conv3", 1, variant)
        self.shortcut = self.shortcut_norm = None
        if f"{place}.shortcut.weight" in state:
            self.shortcut = _convolution(state, f"{place}.shortcut", stride, variant)
            self.shortcut_norm = _norm(state, f"{place}.shortcut_norm")

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(_activated(self.norm1(self.conv1(x)), self.variant)))
        if self.deep:
            out = self.norm3(self.conv3(_activated(out, self.variant)))
        if self.shortcut is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut(x))
        return _activated(out + x, self.variant)


class _OneSided(nn.Conv2d):
    """A convolution with stride 2 that pads at the right and below alone."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (0, 1, 0, 1)))


def _activated(x: Tensor, variant: Variant) -> Tensor:
    return torch.relu(x) if variant.activation == "relu" else x * torch.sigmoid(x)


def _convolution(state: Mapping[str, Tensor], name: str, stride: int, variant: Variant) -> nn.Conv2d:
    outside, inside, size, _ = state[f"{name}.weight"].shape
    if variant.one_sided and stride == 2 and size == 3:
        return _OneSided(inside, outside, size, stride, bias=False)
    return nn.Conv2d(inside, outside, size, stride, padding=size // 2, bias=False)


def _norm(state: Mapping[str, Tensor], name: str) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(len(state[f"{name}.weight"]))
