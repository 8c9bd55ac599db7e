"""Networks of usual kinds in plain torch, for measurements of speed: no weights, no library.

Wide ResNet: Zagoruyko and Komodakis, BMVC 2016 (arXiv 1605.07146). ResNet: He et al., CVPR 2016 (arXiv 1512.03385), with the
stride in the 3 × 3 convolution. Vision transformer: Dosovitskiy et al., ICLR 2021 (arXiv 2010.11929), and its small variant by
Touvron et al., ICML 2021 (arXiv 2012.12877).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

CLASSES = 10


@dataclass(frozen=True)
class Network:
    """A network of the measurement."""

    name: str
    build: Callable[[], nn.Module]
    """Gives it in training mode, with weights from torch's global generator."""
    shape: tuple[int, int, int]
    """Of an image, (C, H, W)."""
    images: int
    """Number of images to attack."""
    batch: int


class _Wide(nn.Module):
    """A block of a wide ResNet, activation first."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(width), nn.BatchNorm2d(out)
        self.one = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.two = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.short = nn.Identity() if width == out else nn.Conv2d(width, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.first(x).relu()
        same = isinstance(self.short, nn.Identity)
        inner: Tensor = self.two(self.second(self.one(active)).relu())
        shortcut: Tensor = x if same else self.short(active)
        return inner + shortcut


def wide_resnet(depth: int = 28, factor: int = 10, channels: int = 3) -> nn.Module:
    """WRN-`depth`-`factor` for images of 32 × 32 pixels; `depth` is 6n + 4."""
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False)]
    width = 16
    for out, stride in ((16 * factor, 1), (32 * factor, 2), (64 * factor, 2)):
        for number in range((depth - 4) // 6):
            layers.append(_Wide(width, out, stride if number == 0 else 1))
            width = out
    return nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU(), *_head(width))


class _Bottleneck(nn.Module):
    """A block of a ResNet-50."""

    def __init__(self, width: int, middle: int, stride: int) -> None:
        super().__init__()
        out = 4 * middle
        self.body = nn.Sequential(
            *_convolution(width, middle, 1, 1),
            nn.ReLU(),
            *_convolution(middle, middle, 3, stride),
            nn.ReLU(),
            *_convolution(middle, out, 1, 1),
        )
        plain = width == out and stride == 1
        self.short = nn.Identity() if plain else nn.Sequential(*_convolution(width, out, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.body(x) + self.short(x)
        return total.relu()


def resnet(blocks: tuple[int, ...] = (3, 4, 6, 3), width: int = 64) -> nn.Module:
    """A ResNet of bottlenecks, with these numbers the ResNet-50."""
    layers: list[nn.Module] = [*_convolution(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    before = width
    for group, count in enumerate(blocks):
        middle = width * 2**group
        for number in range(count):
            layers.append(_Bottleneck(before, middle, 2 if group and number == 0 else 1))
            before = 4 * middle
    return nn.Sequential(*layers, *_head(before))


class _Attention(nn.Module):
    """A block of a transformer, normalisation first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        query, key, value = self.mixed(self.before(x)).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(n, length, width)
        x = x + self.out(seen)
        total: Tensor = x + self.wide(self.after(x))
        return total


class VisionTransformer(nn.Module):
    """A vision transformer; with the defaults ViT-S/16 for images of 224 × 224 pixels."""

    def __init__(self, size: int = 224, patch: int = 16, width: int = 384, depth: int = 12, heads: int = 6) -> None:
        """`size` is a multiple of `patch`, `width` one of `heads`."""
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, (size // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(_Attention(width, heads) for _ in range(depth)), nn.LayerNorm(width))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 10) of images (N, 3, size, size)."""
        parts = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(parts), -1, -1), parts], 1) + self.places
        logits: Tensor = self.head(self.blocks(tokens)[:, 0])
        return logits


def small_cnn(width: int = 32) -> nn.Module:
    """Four convolutions for images of 32 × 32 pixels."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3, 2, 1),
        nn.ReLU(),
        *_head(2 * width),
    )


def _convolution(width: int, out: int, size: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(width, out, size, stride, size // 2, bias=False), nn.BatchNorm2d(out)


def _head(width: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)


NETWORKS = (
    Network("small CNN, 32×32", small_cnn, (3, 32, 32), 1024, 1024),
    Network("WRN-28-10, 32×32", wide_resnet, (3, 32, 32), 512, 256),
    Network("ResNet-50, 224×224", resnet, (3, 224, 224), 256, 128),
    Network("ViT-S/16, 224×224", VisionTransformer, (3, 224, 224), 256, 128),
)
"""The networks of `gauntlet speed --device cuda`, the cheapest first."""
SMALL = (
    Network("small CNN, tiny", partial(small_cnn, 8), (3, 8, 8), 24, 16),
    Network("WRN, tiny", partial(wide_resnet, 10, 1), (3, 8, 8), 24, 16),
    Network("ResNet, tiny", partial(resnet, (1, 1), 4), (3, 16, 16), 24, 16),
    Network("ViT, tiny", partial(VisionTransformer, 16, 8, 16, 1, 2), (3, 16, 16), 24, 16),
)
"""Tiny ones of the same kinds: `--small` shows on a CPU that the measurement runs, and says nothing of speed."""
