"""Preprocessors of the Adversarial Robustness Toolbox as modules from images to images."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Preprocessor = Callable[[Any], tuple[Any, Any]]


class ThroughNumpy(nn.Module):
    """A function on NumPy arrays (N, C, H, W) as a module: no gradient passes through it.

    Images in [0, 1], of any floating dtype and on any device, give images of the same shape, dtype, device and range;
    the input is left as it is. Arrays of float64 stay float64 on the way, all others pass as float32.
    """

    def __init__(self, preprocessor: Preprocessor) -> None:
        """`preprocessor` maps arrays (N, C, H, W) to a pair, the first of which is the result, as in ART."""
        super().__init__()
        self.preprocessor = preprocessor

    def forward(self, images: Tensor) -> Tensor:
        """Transformed images (N, C, H, W), without a gradient."""
        if images.ndim != 4:
            raise ValueError(f"images of shape {tuple(images.shape)} are not understood: pass a batch (N, C, H, W)")
        if len(images) == 0:
            return images.detach().clone()
        wide = images.dtype == torch.float64
        # Clipping copies, and keeps what is just outside the box from wrapping around in 8-bit integers.
        array = images.detach().to("cpu", torch.float64 if wide else torch.float32).numpy().clip(0, 1)
        changed, _ = self.preprocessor(array)
        return torch.from_numpy(np.ascontiguousarray(changed)).to(images)

    def extra_repr(self) -> str:
        """The preprocessor's name."""
        return type(self.preprocessor).__name__


def art_preprocessor(name: str) -> Callable[..., Preprocessor]:
    """The class of ART of that name, imported here because ART takes seconds. Raises ImportError with the way out."""
    try:
        module = importlib.import_module("art.defences.preprocessor")
    except ImportError as error:
        raise ImportError(f"cannot import ART ({error}): run `pip install adversarial-robustness-toolbox`") from error
    kind: Callable[..., Preprocessor] = getattr(module, name)
    return kind


def whole_number(name: str, value: object, least: int, most: int) -> None:
    """Raise ValueError that names the setting, unless it is an int from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name}={value!r} must be a whole number from {least} to {most}")
