"""Architectures of two published networks, in plain torch; their weights are in files of their authors.

The provably robust network for MNIST: Wong and Kolter, ICML 2018 (arXiv 1711.00851), github.com/locuslab/convex_adversarial.
The ResNet-20 for CIFAR-10: He et al., CVPR 2016 (arXiv 1512.03385), github.com/akamaster/pytorch_resnet_cifar10.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad


def wong_kolter() -> nn.Module:
    """Two convolutions and two linear layers for images (N, 1, 28, 28)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1568, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


class _Block(nn.Module):
    """Two convolutions and a shortcut without parameters."""

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.grows = stride == 2

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.grows:
            quarter = inner.shape[1] // 4
            x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
        return (x + inner).relu()


class ResNet20(nn.Module):
    """The ResNet-20 for images (N, 3, 32, 32) that are normalised per channel."""

    def __init__(self) -> None:
        """Random weights, in training mode."""
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(_Block(16, 16, 1), _Block(16, 16, 1), _Block(16, 16, 1))
        self.layer2 = nn.Sequential(_Block(16, 32, 2), _Block(32, 32, 1), _Block(32, 32, 1))
        self.layer3 = nn.Sequential(_Block(32, 64, 2), _Block(64, 64, 1), _Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 10)."""
        x = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(images)).relu())))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits
