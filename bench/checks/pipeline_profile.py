"""Looking at a pipeline (a model behind a defense) from outside: is it random, does it give gradients, does it take any?

What is declared on a card is not enough: a defense may be hidden in the forward of a user's model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from gauntlet.attacks.ops.losses import LOSSES, Loss
from gauntlet.attacks.ops.random import Draws, model_randomness, sample_keys
from gauntlet.attacks.views.guard import guarded
from gauntlet.attacks.views.rejection_view import reduced
from gauntlet.defenses.pipeline.defended_model import DefendedModel

PASSES = 5
"""Over the same images, to see whether they differ (AutoAttack's checks, Croce and Hein 2020)."""
GAP = 1e-4
"""Largest L2 distance between normalised logits of two passes of a deterministic model (the same)."""
_SAMPLES = 16

Gradients = Literal["useful", "zero", "none"]
"""`none`: autograd fails, or reaches no input. `zero`: it gives zeros, or what is not finite, for half of the images."""


@dataclass(frozen=True)
class Profile:
    """What adaptive attacks are chosen by; measured on a few clean images."""

    gradients: Gradients
    randomised: bool
    takes_gradients: bool
    """Whether autograd is called inside the forward: optimisation at test time."""


def profile(pipeline: DefendedModel, images: Tensor, labels: Tensor) -> Profile:
    """Measure a pipeline on at most 16 of the images (N, C, H, W) with labels (N,)."""
    few, own = images[:_SAMPLES], labels[:_SAMPLES]
    with guarded(pipeline, 0):
        gap, _ = spread(pipeline, few)
        with torch.no_grad(), gradients_taken() as taken:
            pass_over(pipeline, few, 0)
        worst: Gradients = "useful"
        for loss in LOSSES.values():
            gradients = gradient(lambda at: _logits(pipeline, at, own), few, own, loss)
            if gradients is None:
                worst = "none"
            elif worst != "none" and 2 * int(dead(gradients).sum()) >= len(few):
                worst = "zero"
    return Profile(worst, gap > GAP, taken.calls > 0)


def pass_over(model: nn.Module, images: Tensor, number: int) -> Tensor:
    """Outputs (N, K) of the pass of that number: random numbers of the model are keyed by it and by the row."""
    keys = sample_keys(0, "look at the model", [str(row) for row in range(len(images))], images.device)
    draws = Draws.start(keys)
    with model_randomness(draws.at(step=torch.full_like(draws.step, number))):
        outputs: Tensor = model(images)
    return outputs


def spread(model: nn.Module, images: Tensor) -> tuple[float, Tensor]:
    """How far `PASSES` passes over the same images are apart: the largest L2 gap of normalised outputs, predictions (P, N)."""
    with torch.no_grad():
        passes = torch.stack([pass_over(model, images, number) for number in range(PASSES)])
    unit = normalize(passes.flatten(2).to(torch.float64), dim=2)
    return float((unit - unit[0]).norm(dim=2).amax()) if len(images) else 0.0, passes.argmax(2)


def _logits(pipeline: DefendedModel, images: Tensor, labels: Tensor) -> Tensor:
    outputs = pass_over(pipeline, images, 0)
    return reduced(outputs, labels) if pipeline.rejects else outputs


def gradient(logits: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, loss: Loss) -> Tensor | None:
    """The gradient (N, C, H, W) of a loss at the images, by autograd through `logits`; None where there is none."""
    point = images.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            value = loss(logits(point), labels).sum()
            grads: tuple[Tensor | None, ...] = torch.autograd.grad(value, point, allow_unused=True)
    except (RuntimeError, TypeError):
        return None
    return grads[0]


def dead(gradients: Tensor) -> Tensor:
    """Of which samples the gradient is zero everywhere or not finite, bool (N,)."""
    flat = gradients.flatten(1)
    return (flat.abs().sum(1) == 0) | ~flat.isfinite().all(1)


@dataclass
class Taken:
    """How often autograd was called."""

    calls: int = 0


@contextmanager
def gradients_taken() -> Iterator[Taken]:
    """Count calls of autograd inside; torch's functions are as before afterwards. Not for use from several threads."""
    taken = Taken()
    old: dict[str, Callable[..., Any]] = {name: getattr(torch.autograd, name) for name in ("grad", "backward")}

    def counting(name: str) -> Callable[..., Any]:
        def call(*args: Any, **settings: Any) -> Any:
            taken.calls += 1
            return old[name](*args, **settings)

        return call

    try:
        for name in old:
            setattr(torch.autograd, name, counting(name))
        yield taken
    finally:
        for name, function in old.items():
            setattr(torch.autograd, name, function)
