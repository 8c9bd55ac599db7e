"""Logits of many images, in batches of one size, or in full ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gauntlet.attacks.solving.batch_size import Meter, run_in_batches

_VALUES = 2**21
"""Pixels of a full batch, so that its activations fit into memory."""
_MOST = 50
"""Images of a full batch at most."""


def full_batch(image: Tensor) -> int:
    """Images of a full batch, for images of this shape (C, H, W): 50 (half a block), fewer of large ones, and at least 16."""
    return max(16, min(_MOST, _VALUES // image.numel()))


def full_batches(model: nn.Module, images: Tensor, size: int) -> tuple[Tensor, int]:
    """Logits (N, K), computed in batches of `size` and a last one of what is left, without autocast and gradients.

    Where memory runs out, batches are halved; returned too: the size that fitted. What a batch is filled with may decide how its
    images are rounded: so the same images are to be given again.
    """

    def run(batch: slice) -> Tensor:
        logits: Tensor = model(images[batch])
        return logits

    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        return run_in_batches(run, len(images), size, Meter())


def fixed_batches(model: nn.Module, images: Tensor, size: int) -> Tensor:
    """Logits (N, K), computed in batches of exactly `size`, without autocast and gradients."""
    parts = []
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        for start in range(0, len(images), size):
            part = images[start : start + size]
            padding = part[:1].expand(size - len(part), *part.shape[1:])
            parts.append(model(torch.cat([part, padding]))[: len(part)])
    return torch.cat(parts)
