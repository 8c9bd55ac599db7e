"""Preprocessors and postprocessors of the Adversarial Robustness Toolbox (ART) as torch modules."""

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
    """A function on NumPy arrays (N, C, H, W) as a module without a gradient.

    Images in [0, 1], of any floating dtype and on any device, give images of the same shape, dtype, device and range; the
    input is not changed. The function receives float64 for float64 images, else float32.
    """

    def __init__(self, preprocessor: Preprocessor) -> None:
        """`preprocessor` maps arrays (N, C, H, W) to a pair whose first element is the result, as in ART."""
        super().__init__()
        self.preprocessor = preprocessor

    def forward(self, images: Tensor) -> Tensor:
        """Transformed images (N, C, H, W), without a gradient."""
        if images.ndim != 4:
            raise ValueError(f"images have shape {tuple(images.shape)}: pass a batch (N, C, H, W)")
        if len(images) == 0:
            return images.detach().clone()
        wide = images.dtype == torch.float64
        # Clipping copies, and prevents values just outside the box from wrapping around in 8-bit integers.
        array = images.detach().to("cpu", torch.float64 if wide else torch.float32).numpy().clip(0, 1)
        changed, _ = self.preprocessor(array)
        return torch.from_numpy(np.ascontiguousarray(changed)).to(images)

    def extra_repr(self) -> str:
        """The preprocessor's name."""
        return type(self.preprocessor).__name__


def art_preprocessor(name: str) -> Callable[..., Preprocessor]:
    """The preprocessor class of ART with this name. Raises ImportError with the command to install it."""
    return _art("preprocessor", name)


def art_postprocessor(name: str) -> Callable[..., Postprocessor]:
    """The postprocessor class of ART with this name. Raises ImportError with the command to install it."""
    return _art("postprocessor", name)


def _art(kind: str, name: str) -> Callable[..., Any]:
    # Imported here, since importing ART takes seconds.
    try:
        module = importlib.import_module(f"art.defences.{kind}")
    except ImportError as error:
        raise ImportError(f"cannot import ART ({error}): run `pip install adversarial-robustness-toolbox`") from error
    factory: Callable[..., Any] = getattr(module, name)
    return factory
