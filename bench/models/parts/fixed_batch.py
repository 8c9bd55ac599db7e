"""Models that were made for one batch size: other batches are divided into parts of that size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def in_parts(run: Callable[[Tensor], Tensor], images: Tensor, size: int | None) -> Tensor:
    """The outputs (N, …) of `run` for images (N, …), in parts of `size` images, the last one padded; None: in one part."""
    if size is None or len(images) == size:
        return run(images)
    parts = []
    for part in images.split(size):
        filling = part[:1].expand(size - len(part), *part.shape[1:])
        parts.append(run(torch.cat([part, filling]))[: len(part)])
    return torch.cat(parts)
