"""Preprocessors of the Adversarial Robustness Toolbox as modules from images to images, and where its classes are."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Preprocessor = Callable[[Any], tuple[Any, Any]]
Postprocessor = Callable[[Any], Any]


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
    """The preprocessor of ART of that name. Raises ImportError with the way out."""
    return _art("preprocessor", name)


def art_postprocessor(name: str) -> Callable[..., Postprocessor]:
    """The postprocessor of ART of that name. Raises ImportError with the way out."""
    return _art("postprocessor", name)


def _art(kind: str, name: str) -> Callable[..., Any]:
    # Imported here because ART takes seconds.
    try:
        module = importlib.import_module(f"art.defences.{kind}")
    except ImportError as error:
        raise ImportError(f"cannot import ART ({error}): run `pip install adversarial-robustness-toolbox`") from error
    factory: Callable[..., Any] = getattr(module, name)
    return factory
