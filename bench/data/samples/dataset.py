"""Evaluation data: images in [0, 1], labels and ids, validated before anything is computed with them."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from gauntlet.bench.data.samples.lazy_images import Images
from gauntlet.bench.environment.stopwatch import timed

CHANNELS = (1, 3, 4)
"""Sizes of an axis that is recognised as the channel axis."""

BLOCK = 100
"""Number of positions in a block. It is part of the store's layout: with another number stored blocks are not reused."""

_CHECKED_IMAGES = 1000
"""Number of images in which 8-bit values above 1 are searched for."""


@dataclass(frozen=True, eq=False)
class Data:
    """Images to evaluate on, validated on construction.

    `images`: float32 or float64 (N, C, H, W) in [0, 1], in memory or read when they are indexed. `labels`: int64 (N,) in
    0..classes-1. `ids`: unique strings (N,). `classes`: the number of classes; if the source does not state it, the largest
    label plus 1, a lower bound. `spec`: the text that loads the full data set again. `positions`: the samples' positions in
    the full data set, which a selection keeps. Raises ValueError that names the sample, its value and what to do.
    """

    name: str
    images: Tensor | Images = field(repr=False)
    labels: Tensor = field(repr=False)
    ids: tuple[str, ...] = field(repr=False)
    classes: int
    spec: str
    positions: tuple[int, ...] = field(repr=False)
    class_names: tuple[str, ...] = field(default=(), repr=False)
    """Names of the classes, in the order of the labels; empty where the source has none."""

    def __post_init__(self) -> None:
        """Validate the data."""
        validate(self)

    def __len__(self) -> int:
        """The number of samples N."""
        return len(self.ids)


def blocks(data: Data) -> list[list[int]]:
    """Indices into `data`, grouped by block (position // BLOCK), in order of first appearance.

    Blocks are those of the full data set, so that a larger selection with the same whole block reuses its results.
    """
    cells: dict[int, list[int]] = {}
    for index, position in enumerate(data.positions):
        cells.setdefault(position // BLOCK, []).append(index)
    return list(cells.values())


@timed("hash")
def block_digest(data: Data, indices: Sequence[int]) -> str:
    """SHA-256 in hex over dtype, shape, pixel bytes, labels and ids of the samples at `indices`, in that order."""
    chosen = list(indices)
    images = data.images[chosen].detach().cpu().contiguous().numpy()
    labels = data.labels[chosen].cpu().contiguous().numpy()
    digest = hashlib.sha256()
    # JSON, since joined ids would be ambiguous.
    header = [str(images.dtype), list(images.shape), [data.ids[i] for i in chosen]]
    digest.update(json.dumps(header).encode())
    digest.update(images.astype(images.dtype.newbyteorder("<"), copy=False).tobytes())
    digest.update(labels.astype("<i8", copy=False).tobytes())
    return digest.hexdigest()


def validate(data: Data) -> None:
    """Raise ValueError for data on which figures would be wrong or impossible."""
    check_images_shape(data.images)
    if data.images.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"images of data {data.name!r} have dtype {data.images.dtype}: give float32 or float64 in [0, 1], "
            "or uint8 in 0..255"
        )
    count = len(data.images)
    if count == 0:
        raise ValueError(f"data {data.name!r} has no samples: give at least one image")
    if data.labels.ndim != 1:
        hint = "; one-hot rows become classes by labels.argmax(1)" if data.labels.ndim == 2 else ""
        raise ValueError(f"labels of data {data.name!r} have shape {tuple(data.labels.shape)}, not (N,){hint}")
    if data.labels.dtype != torch.int64:
        raise ValueError(f"labels of data {data.name!r} have dtype {data.labels.dtype}: give whole numbers, as int64")
    for what, length in (("labels", len(data.labels)), ("ids", len(data.ids)), ("positions", len(data.positions))):
        if length != count:
            raise ValueError(f"data {data.name!r} has {count} images and {length} {what}: give as many as images")
    _check_ids(data)
    _check_labels(data)
    _check_pixels(data)


def check_images_shape(images: Tensor | Images | npt.NDArray[Any]) -> None:
    """Raise ValueError unless the shape is (N, C, H, W) without an empty image.

    A last axis of 1, 3 or 4 that is smaller than the two axes before it, with a second axis of another size, looks like the
    channel axis. Such images are refused, not transposed: only the user knows which layout the model expects.
    """
    shape = tuple(images.shape)
    if images.ndim != 4:
        raise ValueError(f"images have shape {shape}: give (N, C, H, W), or (N, H, W) for one channel")
    if shape[3] in CHANNELS and shape[1] not in CHANNELS and shape[3] < min(shape[1], shape[2]):
        raise ValueError(
            f"images have shape {shape}, which looks like (N, H, W, C): transpose to (N, C, H, W), "
            "by images.transpose(0, 3, 1, 2) in numpy or images.permute(0, 3, 1, 2) in torch"
        )
    if 0 in shape[1:]:
        raise ValueError(f"images have shape {shape}, so an image has no pixels: give C, H and W of at least 1")


def check_bytes(images: Tensor | npt.NDArray[Any]) -> None:
    """Raise ValueError for 8-bit images that contain 0 and 1 only: divided by 255 they would be almost black."""
    if str(images.dtype).removeprefix("torch.") == "uint8" and len(images) and int(images[:_CHECKED_IMAGES].max()) == 1:
        raise ValueError(
            "images are uint8 and contain only 0 and 1, but 8-bit images range from 0 to 255: give floats in [0, 1], or "
            "multiply by 255"
        )


def _sample(data: Data, index: int) -> str:
    return f"sample {data.ids[index]!r} (position {data.positions[index]}) of data {data.name!r}"


def _check_ids(data: Data) -> None:
    for index, sample_id in enumerate(data.ids):
        if not isinstance(sample_id, str):
            raise ValueError(
                f"id {sample_id!r} at index {index} of data {data.name!r} is not a string: give ids as strings"
            )
        if not sample_id or sample_id != sample_id.strip() or len(sample_id.splitlines()) > 1:
            raise ValueError(
                f"id {sample_id!r} at index {index} of data {data.name!r} is not usable: an id is a single line without "
                "spaces at either end"
            )
    for what, values in (("id", data.ids), ("position", data.positions)):
        value, times = Counter(values).most_common(1)[0]
        if times > 1:
            first, second = [i for i, sample_id in enumerate(values) if sample_id == value][:2]
            raise ValueError(
                f"{what} {value!r} of data {data.name!r} occurs {times} times, first at index {first} and {second}: "
                f"give every sample its own {what}"
            )
    if min(data.positions) < 0:
        raise ValueError(f"position {min(data.positions)} of data {data.name!r} is negative: positions count from 0")


def _check_labels(data: Data) -> None:
    if data.classes < 2:
        raise ValueError(f"classes={data.classes!r} of data {data.name!r}: classification needs at least 2 classes")
    bad = (data.labels < 0) | (data.labels >= data.classes)
    if bad.any():
        index = int(bad.nonzero()[0])
        raise ValueError(
            f"{_sample(data, index)} has label {int(data.labels[index])}, outside 0..{data.classes - 1} "
            f"({int(bad.sum())} of {len(data)} samples): number the classes from 0, or give the right `classes`"
        )


def _check_pixels(data: Data) -> None:
    if isinstance(data.images, Images) and data.images.in_bytes:
        return
    some = BLOCK if isinstance(data.images, Images) else len(data)
    for start in range(0, len(data), some):
        part = data.images[start : start + some].detach()
        low, high = (float(bound) for bound in torch.aminmax(part))
        if not (low >= 0 and high <= 1):  # also true for NaN, which aminmax propagates
            _refuse_pixels(data, start, part, low, high)


def _refuse_pixels(data: Data, start: int, part: Tensor, low: float, high: float) -> None:
    outside = ~((part >= 0) & (part <= 1)).flatten(1)
    samples = outside.any(1)
    index = int(samples.nonzero()[0])
    flat = int(outside[index].nonzero()[0])
    place = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), part.shape[1:]))
    value = float(part[index].flatten()[flat])
    if not torch.isfinite(part).all():
        low, high = math.nan, math.nan
    raise ValueError(
        f"{_sample(data, start + index)} has the value {value!r} at channel, row, column {place}, outside [0, 1] "
        f"({int(samples.sum())} of {len(part)} samples): {_pixel_hint(low, high)}"
    )


def _pixel_hint(low: float, high: float) -> str:
    if math.isnan(low):
        return "remove the sample, or correct what makes NaN or infinite pixels"
    if low >= -1e-3 and high <= 1 + 1e-3:
        return "clip rounding errors, by images.clip(0, 1)"
    if low < 0:
        return "give the images before normalisation, in [0, 1], and normalise inside the model"
    if high <= 16 and high == int(high):
        return f"divide by {int(high)} (or by 255, whichever is the largest value of the format)"
    return "divide by 255" if high <= 255 else "divide by the largest value of the format"
