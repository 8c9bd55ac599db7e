"""Train the network against PGD, or fine-tune it without an attack: `python train.py` and `python train.py --finetune`.

The second is a change of the kind that a gate is for: clean accuracy stays, robustness is lost.
"""

import sys

import numpy as np
import torch
from model import WEIGHTS, accuracy, build, network
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

EPS = 0.15


def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The 8x8 digits of scikit-learn: a thousand to train on, the rest to test."""
    found = load_digits()
    images = torch.from_numpy((found.images / 16).astype(np.float32))[:, None]
    labels = torch.from_numpy(found.target.astype(np.int64))
    return images[:1000], labels[:1000], images[1000:], labels[1000:]


def attacked(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """PGD, seven steps from a random start."""
    moved = (images + torch.empty_like(images).uniform_(-EPS, EPS)).clamp(0, 1)
    for _ in range(7):
        moved.requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model(moved), labels), moved)
        moved = (moved.detach() + 0.05 * gradient.sign()).clamp(images - EPS, images + EPS).clamp(0, 1)
    return moved.detach()


def train(model: nn.Module, steps: int, *, attack: bool, rate: float) -> None:
    images, labels, _, _ = digits()
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(steps):
        chosen = torch.randint(len(labels), (100,))
        batch = attacked(model, images[chosen], labels[chosen]) if attack else images[chosen]
        optimiser.zero_grad()
        cross_entropy(model(batch), labels[chosen]).backward()
        optimiser.step()


if __name__ == "__main__":
    torch.manual_seed(0)
    finetune = "--finetune" in sys.argv[1:]
    model = build() if finetune else network()
    train(model, 40 if finetune else 3000, attack=not finetune, rate=1e-3)
    save_file(model.state_dict(), WEIGHTS)
    _, _, images, labels = digits()
    sys.stdout.write(f"clean accuracy {accuracy(model, images, labels):.1%}, written: {WEIGHTS.name}\n")
