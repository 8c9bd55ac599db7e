"""A model behind a defense, and what gradient attacks receive in its place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gauntlet.attacks.adapters.guard import guarded
from gauntlet.attacks.random import Draws, model_randomness, sample_keys
from gauntlet.defenses.bpda import straight_through

_SAMPLES = 8
"""How many images a measurement looks at."""
_PASSES = 8
"""A transformation that tosses one coin a batch looks deterministic in 1 of 128 measurements."""


class DefendedModel(nn.Module):
    """Logits of `model` on transformed images.

    `differentiable` and `randomised` say what the transformation is: from its card, or measured by `is_differentiable`
    and `is_randomised`.
    """

    def __init__(self, model: nn.Module, transform: nn.Module, *, differentiable: bool, randomised: bool) -> None:
        """Puts `transform` in front of `model`."""
        super().__init__()
        self.model = model
        self.transform = transform
        self.differentiable = differentiable
        self.randomised = randomised
        # A module is born in training mode; this one follows what it wraps.
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W) in [0, 1]."""
        logits: Tensor = self.model(self.transform(images))
        return logits

    def attack_view(self) -> nn.Module:
        """What gradient attacks receive: itself, or the same function with BPDA's gradient.

        The view shares model and transformation, and its outputs are the same bit for bit.
        """
        if self.differentiable:
            return self
        transform = straight_through(self.transform)
        return DefendedModel(self.model, transform, differentiable=True, randomised=self.randomised)


def is_differentiable(transform: nn.Module, images: Tensor) -> bool:
    """Whether autograd gives a gradient through a transformation, measured on a few of the images (N, C, H, W).

    True where the gradient of a random projection of the output exists, is finite, and is not zero everywhere. That is
    necessary for a useful gradient, not sufficient: see the checks for gradient masking. Errors of the transformation
    itself are raised as they are; one that happens only when a gradient is asked for means False.
    """
    _not_empty(images)
    with guarded(transform, 0):
        few = images[:_SAMPLES].detach().clone()
        with torch.no_grad():
            output = _keyed(transform, few, 0)
        if not output.is_floating_point():
            return False
        projection = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output)
        point = few.clone().requires_grad_()
        try:
            output = _keyed(transform, point, 0)
            (gradient,) = torch.autograd.grad((output * projection).sum(), point, allow_unused=True)
        except (RuntimeError, TypeError):
            return False
        return gradient is not None and bool(gradient.isfinite().all()) and bool((gradient != 0).any())


def is_randomised(transform: nn.Module, images: Tensor) -> bool:
    """Whether passes over the same images (N, C, H, W) differ, measured on a few of them with fresh draws each time."""
    _not_empty(images)
    with guarded(transform, 0), torch.no_grad():
        few = images[:_SAMPLES].detach().clone()
        first = _keyed(transform, few, 0)
        return any(not torch.equal(first, _keyed(transform, few, attempt)) for attempt in range(1, _PASSES))


def _not_empty(images: Tensor) -> None:
    if len(images) == 0:
        raise ValueError("images is empty: pass a few images (N, C, H, W) to measure on")


def _keyed(transform: Callable[[Tensor], Tensor], images: Tensor, step: int) -> Tensor:
    keys = sample_keys(0, "measure the defense", [str(index) for index in range(len(images))], images.device)
    draws = Draws.start(keys)
    with model_randomness(draws.at(step=torch.full_like(draws.step, step))):
        return transform(images.clone() if not images.requires_grad else images)
