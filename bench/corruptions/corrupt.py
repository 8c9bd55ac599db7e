"""Corruption of images in tensors: each image separately, with its own random numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gauntlet.attacks.ops.random import sample_keys
from gauntlet.bench.corruptions.catalog import CORRUPTIONS, SEVERITIES
from gauntlet.bench.corruptions.image_ops import Pixels, stored
from gauntlet.bench.corruptions.severity_tables import TABLES, table_for


@cache
def _functions() -> Mapping[str, Callable[..., Pixels]]:
    # Imported with the first corruption: they need scipy.ndimage and scipy.signal, which take half a second.
    from gauntlet.bench.corruptions import blur, digital, noise, spatter, weather

    modules = (noise, blur, weather, digital, spatter)
    return {name: getattr(module, name) for module in modules for name in CORRUPTIONS if hasattr(module, name)}


def corrupt(images: Tensor, ids: Sequence[str], name: str, severity: int, *, seed: int, table: str = "auto") -> Tensor:
    """Corrupt images (N, C, H, W) in [0, 1] at a severity from 1 to 5: same shape, dtype and device, 8-bit values.

    `ids` (N,) name the samples: the same seed, id, corruption and severity give the same image in any batch. `table`: `auto`, by
    the size of the images, or a name of `TABLES`. Raises ValueError for images that the corruption does not support, and
    ImportError if a required library is missing.
    """
    channels, height, width = images.shape[1:]
    known = CORRUPTIONS[name].channels
    if known is not None and channels not in known:
        raise ValueError(
            f"corruption {name!r} is for images of {' or '.join(map(str, known))} channels, not of {channels}: "
            "leave it out for this data"
        )
    settings = _settings(name, severity, table_for(height, width) if table == "auto" else table)
    # NumPy's legacy generators are frozen, so that a key gives the same image with every version.
    keys = sample_keys(seed, f"corruption.{name}.{severity}", ids).tolist()
    pixels = images.detach().to("cpu", torch.float64).permute(0, 2, 3, 1).numpy()
    corrupted = [corrupt_image(image, name, key, settings) for image, key in zip(pixels, keys, strict=True)]
    return torch.from_numpy(np.stack(corrupted)).permute(0, 3, 1, 2).contiguous().to(images)


def corrupt_image(image: Pixels, name: str, key: int, settings: Sequence[Any]) -> Pixels:
    """Corrupt an image (H, W, C) with the random numbers of `key`."""
    random = np.random.RandomState(np.random.Philox(key=key))
    return stored(_functions()[name](image, random, *settings))


def _settings(name: str, severity: int, table: str) -> Sequence[Any]:
    if name == "spatter":
        return (severity,)
    return TABLES[table][name][SEVERITIES.index(severity)]
