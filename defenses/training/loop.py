"""The training loop that all recipes share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gauntlet.attacks.threat import ThreatModel


class TrainingLoss(Protocol):
    """The loss of a recipe on one batch."""

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Scalar loss for images (N, C, H, W) in [0, 1] and labels (N,); random numbers come from `generator`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train: the loss, and the settings of Adam with a one-cycle learning rate (Smith and Topin 2018)."""

    name: str
    summary: str
    source: str
    """Paper, and what departs from it."""
    loss: TrainingLoss
    adversarial: bool = True
    """Whether it trains against a threat model."""
    epochs: int = 60
    batch_size: int = 100
    peak_rate: float = 2e-3
    weight_decay: float = 5e-4


Progress = Callable[[int, int, float], None]
"""Called after each epoch with (epochs done, epochs in all, mean loss)."""


def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    threat: ThreatModel,
    seed: int,
    progress: Progress | None = None,
) -> None:
    """Train `model` in place on images (N, C, H, W) in [0, 1] and labels (N,), and leave it in eval mode.

    Batches and all random numbers of the recipe come from generators of `seed`, so that the same seed gives the same
    weights on the same machine at one number of threads; the model's initial weights are the caller's, and dropout,
    where the model has it, draws from torch's global generator. Raises ValueError for no samples, labels
    that are not as many as the images, and a loss that is not finite.
    """
    if not len(images):
        raise ValueError("images is empty: give at least one image to train on")
    if len(images) != len(labels):
        raise ValueError(f"labels has {len(labels)} entries for {len(images)} images: give one label an image")
    shuffle = torch.Generator().manual_seed(seed)
    noise = torch.Generator(images.device).manual_seed(seed + 1)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.peak_rate, weight_decay=recipe.weight_decay)
    batches = -(-len(images) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.peak_rate, total_steps=recipe.epochs * batches)
    for epoch in range(recipe.epochs):
        total = 0.0
        for rows in torch.randperm(len(images), generator=shuffle).split(recipe.batch_size):  # type: ignore[no-untyped-call]
            chosen = rows.to(images.device)
            model.train()
            loss = recipe.loss(model, images[chosen], labels[chosen], threat, noise)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        mean = total / len(images)
        if not math.isfinite(mean):
            raise ValueError(
                f"the loss of recipe {recipe.name!r} is {mean} in epoch {epoch + 1}: lower "
                f"peak_rate={recipe.peak_rate:g}, or look for NaN in the images"
            )
        if progress is not None:
            progress(epoch + 1, recipe.epochs, mean)
    model.eval()
