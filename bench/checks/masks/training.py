"""Training of the masks' networks on the 1,000 training digits: a second or two each, once per process and seed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.models.cnn import cnn

EPOCHS, BATCH, RATE = 25, 50, 2e-3
Loss = Callable[[Tensor, Tensor], Tensor]
"""Outputs (N, …) and labels (N,) to a scalar."""


@cache
def training_digits() -> tuple[Tensor, Tensor]:
    """Images (1000, 1, 8, 8) and labels (1000,)."""
    data = load_data("digits-train")
    return data.images[:], data.labels


def trained(
    make: Callable[[], nn.Module], seed: int = 0, loss: Loss = cross_entropy, epochs: int = EPOCHS
) -> nn.Module:
    """A copy of the module that `make` gives, trained in training mode by Adam, in eval mode with frozen parameters.

    `make` and `loss` are functions of a module: a module is trained once for each pair, seed and number of epochs.
    """
    return copy.deepcopy(_trained(make, seed, loss, epochs))


@cache
def _trained(make: Callable[[], nn.Module], seed: int, loss: Loss, epochs: int) -> nn.Module:
    images, labels = training_digits()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        model = make().train()
        steps = epochs * (len(labels) // BATCH)
        optimiser = torch.optim.Adam(model.parameters(), RATE)
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(labels)).split(BATCH):
                optimiser.zero_grad()
                loss(model(images[rows]), labels[rows]).backward()
                optimiser.step()
                schedule.step()
    return model.eval().requires_grad_(False)


def member(seed: int) -> nn.Module:
    """The zoo's network, trained here on clean images from this seed."""
    return trained(cnn, seed)
