"""The gradient at the images, or the statement that there is none."""

from __future__ import annotations

import torch
from torch import Tensor


def input_gradient(value: Tensor, x: Tensor) -> Tensor | None:
    """The gradient of the sum of `value` at `x`, in the shape of `x`; None if no gradient reaches `x`.

    There is none where the model detaches its input, runs under `no_grad`, or has layers without a backward pass (int8): then
    `value` needs no gradient, or gets its gradient from parameters alone, or autograd has no derivative for an operation.
    """
    if not value.requires_grad:
        return None
    try:
        gradient: Tensor | None = torch.autograd.grad(value.sum(), x, allow_unused=True)[0]
    except NotImplementedError:
        return None
    return gradient
