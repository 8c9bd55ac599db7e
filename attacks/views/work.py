"""The work of a pass: multiplications in convolutions and linear layers, which is the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class Work:
    """Multiplications for an image, so far."""

    image: float = 0.0


@contextmanager
def counted_work(model: nn.Module, images: int) -> Iterator[Work]:
    """Count the multiplications of the passes within the context, which are over so many images together."""
    # torch's own counter takes a second to import, and its operations differ between versions.
    work = Work()

    def count(layer: nn.Module, args: object, output: Tensor) -> None:
        assert isinstance(layer.weight, Tensor)
        work.image += layer.weight.numel() * output.numel() / len(layer.weight) / images

    layers = [one for one in model.modules() if isinstance(one, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        yield work
    finally:
        for handle in handles:
            handle.remove()
