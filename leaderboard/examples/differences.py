"""Examples of 8-bit images as differences of levels from the clean image, in a few bits for each value.

Decoding gives the same float32 array: a level of 0 to 255, divided by 255.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Levels: TypeAlias = npt.NDArray[np.uint8]
"""An image (C, H, W) in levels of 0 to 255."""
_STEPS: Final = (2, 1)
_HALVES: Final = 0x80
"""Flag of the first byte: two differences in each byte that follows, as 8 more than a number of steps."""
_WRAPPED: Final = 0x40
"""Flag of the first byte: the differences are modulo 256."""
_MOST: Final = 7
"""Largest number of steps that fits into half a byte."""


def encode(image: npt.NDArray[Any], clean: Levels) -> bytes | None:
    """An example as bytes; None where it is not an 8-bit image of float32.

    The first byte says in which steps the differences are, whether two of them share a byte, and whether they are modulo 256.
    """
    if image.dtype != np.float32 or image.shape != clean.shape:
        return None
    levels = np.rint(image * np.float32(255))
    # By their bytes, since -0.0 would come back as 0.0, under another digest.
    if (
        (levels / np.float32(255) + np.float32(0)).tobytes() != image.tobytes()
        or levels.min() < 0
        or levels.max() > 255
    ):
        return None
    difference = levels.astype(np.int16).ravel() - clean.ravel()
    most = int(np.abs(difference).max(initial=0))
    step = next(step for step in _STEPS if not (difference % step).any())
    if most <= _MOST * step:
        halves = np.append(difference // step, [0] * (len(difference) % 2)).astype(np.int8) + 8
        return bytes([step | _HALVES]) + (halves[::2] << 4 | halves[1::2]).astype(np.uint8).tobytes()
    return bytes([1 if most < 128 else 1 | _WRAPPED]) + difference.astype(np.int8).tobytes()


def decode(encoded: bytes, clean: Levels) -> npt.NDArray[np.float32]:
    """The example that `encode` encoded. Raises ValueError for other bytes."""
    step, raw = encoded[0] & ~(_HALVES | _WRAPPED), np.frombuffer(encoded, dtype=np.uint8, offset=1)
    if step not in _STEPS:
        raise ValueError(f"an example is stored in steps of {step}")
    if encoded[0] & _HALVES:
        halves = np.stack([raw >> 4, raw & 15], axis=1).ravel()[: clean.size]
        difference = (halves.astype(np.int16) - 8) * step
    else:
        difference = raw.view(np.int8).astype(np.int16)
    levels = difference.reshape(clean.shape) + clean
    if encoded[0] & _WRAPPED:
        levels %= 256
    if levels.min(initial=0) < 0 or levels.max(initial=0) > 255:
        raise ValueError("an example has levels outside of 0 to 255")
    return levels.astype(np.float32) / np.float32(255)


def clean_digest(images: Sequence[Levels]) -> str:
    """sha256 of clean images: their levels and shapes, in order."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(json.dumps(list(image.shape)).encode())
        digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()
