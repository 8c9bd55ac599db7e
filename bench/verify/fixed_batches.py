"""Logits of many images, in batches of one size."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def fixed_batches(model: nn.Module, images: Tensor, size: int) -> Tensor:
    """Logits (N, K), computed in batches of exactly `size`, without autocast and gradients."""
    parts = []
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        for start in range(0, len(images), size):
            part = images[start : start + size]
            padding = part[:1].expand(size - len(part), *part.shape[1:])
            parts.append(model(torch.cat([part, padding]))[: len(part)])
    return torch.cat(parts)
