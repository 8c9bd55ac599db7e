"""Data from objects in memory: arrays, tensors, torch data sets and loaders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from gauntlet.attacks.ops.validators import whole_number
from gauntlet.bench.data.samples.dataset import Data, check_bytes, check_images_shape
from gauntlet.bench.data.samples.lazy_images import MEMORY_LIMIT, Images

IMAGE_KEYS = ("image", "images", "img", "pixel_values")
LABEL_KEYS = ("label", "labels", "target", "targets")
REREAD = 8
"""Number of samples that are read twice, to notice random augmentation."""


def from_arrays(
    images: Tensor | npt.NDArray[Any],
    labels: Tensor | npt.NDArray[Any] | Sequence[int],
    *,
    ids: Sequence[Any] | npt.NDArray[Any] | None = None,
    classes: int | None = None,
    name: str = "memory",
) -> Data:
    """Build validated data from arrays or tensors, copied to the CPU.

    `images`: (N, C, H, W), or (N, H, W) for one channel; float32 or float64 in [0, 1], or uint8, which is divided by
    255 into float32. (N, H, W, C) is refused. `labels`: whole numbers (N,). `ids`: unique strings or whole numbers;
    default `0`, `1`, …. `classes`: default the largest label plus 1. Raises ValueError.
    """
    pixels = _tensor(images, "images")
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    check_images_shape(pixels)
    check_bytes(pixels)
    pixels = pixels.to(torch.float32) / 255 if pixels.dtype == torch.uint8 else pixels
    targets = _tensor(labels, "labels")
    if targets.numel() and (targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool):
        raise ValueError(f"labels have dtype {targets.dtype}: give whole numbers, as int64")
    targets = targets.to(torch.int64)
    highest = int(targets.max()) if targets.numel() else 0
    return Data(
        name=name,
        images=pixels.contiguous(),
        labels=targets.contiguous(),
        ids=tuple(map(str, range(len(pixels)))) if ids is None else text_ids(ids),
        classes=max(highest + 1, 2) if classes is None else classes,
        spec=name,
        positions=tuple(range(len(pixels))),
    )


def from_dataset(source: Any, limit: int | None = None, *, classes: int | None = None, name: str = "dataset") -> Data:
    """Build validated data from a torch Dataset or DataLoader, or any sequence or iterable of samples.

    A sample is (image, label) or a mapping with keys such as `image` and `label`; an image is a tensor or array
    (C, H, W) or (H, W), or a Pillow image. A loader yields batches of samples. At most `limit` samples are read. Ids are
    the indices. `classes` is taken from `source.classes` if that is a list. A Dataset whose images take more than
    `lazy_images.MEMORY_LIMIT` bytes is read here for its labels, and again for its images when they are indexed.

    Raises ValueError for a loader that shuffles, and for samples that differ when they are read again (random augmentation),
    because results could not be compared with those of another run.
    """
    if limit is not None:
        whole_number("limit", limit, 1)
    loader = source if isinstance(source, DataLoader) else None
    dataset = source if loader is None else loader.dataset
    if loader is not None and _shuffles(loader):
        raise ValueError("the data loader shuffles, so no run sees the same order: build it with shuffle=False")
    _refuse_random(dataset)
    again = loader is None and _indexed(dataset)
    images: list[Tensor] = []
    labels: list[int] = []
    for image, label in _batched(loader) if loader is not None else _single(dataset):
        if images and (image.shape, image.dtype) != (images[0].shape, images[0].dtype):
            raise ValueError(
                f"sample {len(labels)} of data {name!r} is {image.dtype} {tuple(image.shape)}, sample 0 is "
                f"{images[0].dtype} {tuple(images[0].shape)}: resize or crop the images to one size and type"
            )
        labels.append(label)
        if not images or not again or len(labels) * image.numel() * max(4, image.itemsize) <= MEMORY_LIMIT:
            images.append(image)
        else:
            del images[1:]
        if len(labels) == limit:
            break
    if not images:
        raise ValueError(f"data {name!r} has no samples: give at least one image")
    named = getattr(dataset, "classes", None)
    if classes is None and isinstance(named, list | tuple):
        classes = len(named)
    if len(images) == len(labels):
        return from_arrays(torch.stack(images), torch.tensor(labels), classes=classes, name=name)
    return Data(
        name=name,
        images=_unread(dataset, len(labels), images[0]),
        labels=torch.tensor(labels),
        ids=tuple(map(str, range(len(labels)))),
        classes=max(max(labels) + 1, 2) if classes is None else classes,
        spec=name,
        positions=tuple(range(len(labels))),
    )


def _unread(dataset: Any, count: int, first: Tensor) -> Images:
    def read(rows: Sequence[int]) -> npt.NDArray[Any]:
        batch = torch.stack([_image(_pair(dataset[row])[0]) for row in rows])
        return (batch[:, None] if batch.ndim == 3 else batch).numpy()

    shape = (1, *first.shape) if first.ndim == 2 else first.shape
    return Images(read, count, shape, first.numpy().dtype, any_thread=False)


def _tensor(values: Any, what: str) -> Tensor:
    """Copy to the CPU, in native byte order."""
    if isinstance(values, Tensor):
        return values.detach().cpu().clone()
    array = np.asarray(values)
    if array.dtype.kind not in "biufc":
        raise ValueError(f"{what} have dtype {array.dtype}, which is not numeric: give an array of numbers")
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def text_ids(ids: Sequence[Any] | npt.NDArray[Any]) -> tuple[str, ...]:
    """Convert ids to strings. Raises ValueError for an id that is neither a string nor a whole number."""
    listed = ids.tolist() if isinstance(ids, np.ndarray | Tensor) else list(ids)
    for index, value in enumerate(listed):
        if isinstance(value, bool) or not isinstance(value, str | bytes | int | np.integer):
            raise ValueError(f"id {value!r} at index {index} is neither a string nor a whole number")
    return tuple(value.decode() if isinstance(value, bytes) else str(value) for value in listed)


def _pair(sample: Any) -> tuple[Any, Any]:
    if isinstance(sample, Mapping):
        image = next((key for key in IMAGE_KEYS if key in sample), None)
        label = next((key for key in LABEL_KEYS if key in sample), None)
        if image is None or label is None:
            raise ValueError(
                f"a sample has the keys {sorted(map(str, sample))}: give it one of {', '.join(IMAGE_KEYS)} and one of "
                f"{', '.join(LABEL_KEYS)}"
            )
        return sample[image], sample[label]
    if isinstance(sample, tuple | list) and len(sample) >= 2:
        return sample[0], sample[1]
    raise ValueError(f"a sample is a {type(sample).__name__}: give (image, label), or a mapping with these keys")


def _image(image: Any) -> Tensor:
    if hasattr(image, "getbands"):  # a Pillow image has the shape (H, W) or (H, W, C)
        array = np.asarray(image)
        return torch.from_numpy(np.array(array if array.ndim == 2 else array.transpose(2, 0, 1)))
    return _tensor(image, "images")


def _single(dataset: Any) -> Iterator[tuple[Tensor, int]]:
    samples: Iterable[Any] = (dataset[i] for i in range(len(dataset))) if _indexed(dataset) else dataset
    for index, sample in enumerate(samples):
        image, label = _pair(sample)
        yield _image(image), _label(label, index)


def _batched(loader: DataLoader[Any]) -> Iterator[tuple[Tensor, int]]:
    index = 0
    for batch in loader:
        images, labels = _pair(batch)
        if loader.batch_size is None and getattr(images, "ndim", 0) < 4 and getattr(labels, "ndim", 0) == 0:
            images, labels = [images], [labels]
        if len(images) != len(labels):
            raise ValueError(f"a batch has {len(images)} images and {len(labels)} labels: give as many as images")
        for image, label in zip(images, labels, strict=True):
            yield _image(image), _label(label, index)
            index += 1


def _label(label: Any, index: int) -> int:
    value = label.tolist() if isinstance(label, Tensor | np.ndarray | np.generic) else label
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"the label of sample {index} is {label!r}: give a whole number")
    return value


def _indexed(dataset: Any) -> bool:
    """Whether samples can be read again, in any order."""
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")


def _shuffles(loader: DataLoader[Any]) -> bool:
    samplers = (loader.sampler, getattr(loader.batch_sampler, "sampler", None))
    return any(isinstance(sampler, RandomSampler | SubsetRandomSampler | WeightedRandomSampler) for sampler in samplers)


def _refuse_random(dataset: Any) -> None:
    if not _indexed(dataset):
        return
    for index in range(min(REREAD, len(dataset))):
        first, second = (_image(_pair(dataset[index])[0]) for _ in range(2))
        if first.shape != second.shape or not torch.equal(first.nan_to_num(), second.nan_to_num()):
            raise ValueError(
                f"sample {index} differs when it is read again: remove random augmentation from the data set's "
                "transforms, so that every run is measured on the same images"
            )
