"""Normalisation of images in [0, 1] before a model: (image − mean) / std, per channel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gauntlet.bench.models.parts.errors import ModelError


def channel_values(name: str, values: Sequence[float]) -> Tensor:
    """A mean or std per channel as a tensor (1, C, 1, 1).

    `name` is `mean` or `std`. Raises ModelError for an empty sequence, for values that are not finite, and for a std that is
    not positive.
    """
    if not values or not all(math.isfinite(value) and (name == "mean" or value > 0) for value in values):
        kind = "finite" if name == "mean" else "positive, finite"
        raise ModelError(f"{name}={tuple(values)!r} must be {kind} numbers, one for each channel")
    return torch.tensor(tuple(values)).view(1, -1, 1, 1)


def normalise(images: Tensor, mean: Tensor | None, std: Tensor | None) -> Tensor:
    """Images (N, C, H, W) minus `mean`, divided by `std`, each (1, C, 1, 1) or None. Raises ModelError for another C."""
    for name, value in (("mean", mean), ("std", std)):
        if value is not None and value.shape[1] not in (1, images.shape[1]):
            given, channels = value.shape[1], images.shape[1]
            own = "" if channels == 1 else f", or {channels}, one for each channel"
            raise ModelError(
                f"{name} has {given} values, but the images have {channels} channel{'' if channels == 1 else 's'}: "
                f"give 1 value{own}"
            )
    if mean is not None:
        images = images - mean
    return images if std is None else images / std
