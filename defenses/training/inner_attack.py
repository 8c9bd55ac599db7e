"""Steps and starting points of the recipes' inner attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.norms import project, steepest
from gauntlet.attacks.ops.threat import ThreatModel


def uniform_start(x: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
    """A point with every pixel drawn from [-eps, eps] around the clean pixel, projected into the ball and the box."""
    delta = 2 * torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype) - 1
    return project(x + threat.eps * delta, x, threat)


def ascend(point: Tensor, x: Tensor, objective: Callable[[Tensor], Tensor], size: float, threat: ThreatModel) -> Tensor:
    """One projected step of length `size` along the direction of steepest ascent of a scalar objective."""
    point = point.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(point), point)
    return project(point.detach() + size * steepest(gradient, threat.norm), x, threat)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set the model to eval mode within the context, and restore the mode of every submodule afterwards.

    `model.train()` would also change submodules that are kept in eval mode, such as frozen batch norms.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
