"""Images that are read when they are asked for, so that memory holds a batch of them, whatever the size of the set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MEMORY_LIMIT = 2**28
"""Bytes of images, as they are computed with, up to which a set is read once and kept in memory."""

Read = Callable[[Sequence[int]], npt.NDArray[Any]]
"""Gives the images at these places of a file or folder, (N, C, H, W)."""

_TOGETHER = 100


class Images:
    """Indexed like a tensor (N, C, H, W), and each index reads: `images[3]`, `images[:64]`, `images[[5, 2]]` are tensors.

    `images[:]` reads all of them. Bytes become float32, divided by 255; floats stay what they are. Reading raises
    ValueError that names the file of an image that cannot be used.
    """

    ndim = 4

    def __init__(
        self, read: Read, count: int, shape: Sequence[int], dtype: npt.DTypeLike = np.uint8, *, rows: Any = None
    ) -> None:
        """`shape` and `dtype` are those of one image as `read` gives it; `rows`: the places that count (None: all)."""
        self._read = read
        self._stored = np.dtype(dtype)
        self._rows = np.arange(count) if rows is None else np.asarray(rows, dtype=np.int64)
        self.shape = torch.Size((len(self._rows), *shape))

    @property
    def in_bytes(self) -> bool:
        """Whether the source holds 8-bit images, which cannot lie outside [0, 1]."""
        return self._stored == np.uint8

    @property
    def dtype(self) -> torch.dtype:
        """Of the tensors that reading gives."""
        return torch.float32 if self.in_bytes else torch.from_numpy(np.empty(0, self._stored.newbyteorder("="))).dtype

    def __repr__(self) -> str:
        return f"Images{tuple(self.shape)}"

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Tensor:
        rows = self._rows[_index(index)]
        return self._tensor(rows) if rows.ndim else self._tensor(rows[None])[0]

    def take(self, index: Any) -> Images:
        """Those at an index of several, still unread."""
        return Images(self._read, 0, self.shape[1:], self._stored, rows=self._rows[_index(index)])

    def _tensor(self, rows: npt.NDArray[np.int64]) -> Tensor:
        if not len(rows):
            return torch.empty((0, *self.shape[1:]), dtype=self.dtype)
        pixels = self._read(rows.tolist())
        own = torch.from_numpy(np.array(pixels, dtype=pixels.dtype.newbyteorder("="), order="C"))
        return own.to(torch.float32).div_(255) if self.in_bytes else own


def array_images(array: npt.NDArray[Any]) -> Images:
    """Images of an array (N, C, H, W), in memory or mapped from a file."""
    return Images(lambda rows: array[rows], len(array), array.shape[1:], array.dtype)


def select_images(images: Tensor | Images, index: Any) -> Tensor | Images:
    """Those at an index of several; read only where the images are in memory anyway."""
    return images.take(index) if isinstance(images, Images) else images[index]


def image_bytes(images: Tensor | Images) -> int:
    """What one image takes in memory, as it is computed with."""
    return images.shape[1:].numel() * images.dtype.itemsize


def load_if_small(images: Tensor | Images) -> Tensor | Images:
    """The images as a tensor where they fit into `MEMORY_LIMIT` bytes, read a few at a time."""
    if isinstance(images, Tensor) or len(images) * image_bytes(images) > MEMORY_LIMIT:
        return images
    whole = torch.empty(images.shape, dtype=images.dtype)
    for start in range(0, len(images), _TOGETHER):
        whole[start : start + _TOGETHER] = images[start : start + _TOGETHER]
    return whole


def _index(index: Any) -> Any:
    if isinstance(index, Tensor):
        return index.cpu().numpy()
    if isinstance(index, Sequence):  # an empty list has no type of its own, and a tuple would mean several axes
        return np.asarray(index, dtype=np.int64)
    return index
