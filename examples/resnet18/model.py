"""A ResNet-18 for 32x32 images with random weights, and images that it gets right: something of a real size to time."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        """A shortcut with parameters where the shape changes."""
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after))
        same = before == after and stride == 1
        projection = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.shortcut = nn.Identity() if same else projection

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) to (N, after, H / stride, W / stride)."""
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


@functools.cache
def build() -> nn.Module:
    """The network, the same at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        widths = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
        stages = [nn.Sequential(Block(a, b, stride), Block(b, b, 1)) for a, b, stride in widths]
        stem = (nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
        return nn.Sequential(*stem, *stages, *head).eval()


def data() -> tuple[Tensor, Tensor]:
    """64 random images (64, 3, 32, 32), labelled as the network sees them."""
    images = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return images, build()(images).argmax(1)
