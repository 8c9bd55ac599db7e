"""Gradients of one scale, so that momentum weighs each step alike."""

from __future__ import annotations

import torch
from torch import Tensor

from gauntlet.attacks.ops.norms import per_image


def levelled(gradient: Tensor) -> Tensor:
    """Each image's gradient, scaled to a mean absolute value of 1; a gradient of 0 stays 0."""
    mean = gradient.abs().flatten(1).mean(1)
    return gradient / per_image(torch.where(mean > 0, mean, 1.0), gradient)
