"""Gradients that float16 can hold: each sample's is divided by its largest entry on the way through the model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def with_scaled_gradient(run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The outputs (N, K) of `run` for images (N, …), in float32.

    float16 cannot hold the gradients of confident samples. So each sample's gradient is divided by its largest entry at the
    outputs and multiplied by it at the image, which changes nothing else as long as samples do not mix.
    """
    scale = images.new_ones(len(images), 1, dtype=torch.float32)

    def shrink(gradient: Tensor) -> Tensor:
        largest = gradient.abs().amax(1, keepdim=True)
        scale.copy_(torch.where(largest > 0, largest, 1))
        return gradient / scale

    def restore(gradient: Tensor) -> Tensor:
        return gradient * scale.view(-1, *[1] * (gradient.ndim - 1)).to(gradient.dtype)

    return hooked(run(hooked(images, restore)).float(), shrink)


def hooked(x: Tensor, hook: Callable[[Tensor], Tensor]) -> Tensor:
    """An alias of `x` whose gradient passes through `hook`; a hook on `x` itself would outlive the pass."""
    alias = x.view_as(x)
    if alias.requires_grad:
        # Out of sight of the interception of hooks: this one does not hide the gradient.
        with torch._C.DisableTorchFunction():
            alias.register_hook(hook)
    return alias
