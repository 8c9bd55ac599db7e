"""Images that are read when they are indexed, so that only a batch is in memory, whatever the size of the data set."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gauntlet.bench.environment.heap import give_large_arrays_back

MEMORY_LIMIT = 2**28
"""Largest size in bytes of images, as floats, that are read once and kept in memory."""

Read = Callable[[Sequence[int]], npt.NDArray[Any]]
"""Reads the images at these positions of a file or folder: (N, C, H, W)."""

_CHUNK = 100


class Images:
    """Images (N, C, H, W) that are read when they are indexed: `images[3]`, `images[:64]` and `images[[5, 2]]` are tensors.

    `images[:]` reads all images. 8-bit images become float32, divided by 255; floats are unchanged. Reading raises
    ValueError that names the file of an image that cannot be used.
    """

    ndim = 4

    def __init__(
        self,
        read: Read,
        count: int,
        shape: Sequence[int],
        dtype: npt.DTypeLike = np.uint8,
        *,
        rows: Any = None,
        any_thread: bool = True,
    ) -> None:
        """`shape` and `dtype` are those of an image as `read` returns it; `rows`: the positions to include (None: all).

        `any_thread`: whether another thread may call `read`; never are two calls made at once.
        """
        self._read = read
        self._lock = threading.Lock()
        self.any_thread = any_thread
        self._stored = np.dtype(dtype)
        self._rows = np.arange(count) if rows is None else np.asarray(rows, dtype=np.int64)
        self.shape = torch.Size((len(self._rows), *shape))

    @property
    def in_bytes(self) -> bool:
        """Whether the source has 8-bit images, which cannot be outside [0, 1]."""
        return self._stored == np.uint8

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tensors that indexing returns."""
        return torch.float32 if self.in_bytes else torch.from_numpy(np.empty(0, self._stored.newbyteorder("="))).dtype

    def __repr__(self) -> str:
        return f"Images{tuple(self.shape)}"

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Tensor:
        rows = self._rows[_index(index)]
        return self._tensor(rows) if rows.ndim else self._tensor(rows[None])[0]

    def take(self, index: Any) -> Images:
        """Select several images without reading them."""
        chosen = self._rows[_index(index)]
        taken = Images(self._read, 0, self.shape[1:], self._stored, rows=chosen, any_thread=self.any_thread)
        taken._lock = self._lock
        return taken

    def _tensor(self, rows: npt.NDArray[np.int64]) -> Tensor:
        if not len(rows):
            return torch.empty((0, *self.shape[1:]), dtype=self.dtype)
        with self._lock:
            pixels = self._read(rows.tolist())
        own = torch.from_numpy(np.array(pixels, dtype=pixels.dtype.newbyteorder("="), order="C"))
        return own.to(torch.float32).div_(255) if self.in_bytes else own


def array_images(array: npt.NDArray[Any]) -> Images:
    """Images from an array (N, C, H, W), in memory or mapped from a file."""
    return Images(lambda rows: array[rows], len(array), array.shape[1:], array.dtype)


def select_images(images: Tensor | Images, index: Any) -> Tensor | Images:
    """Select several images; lazy images are not read."""
    return images.take(index) if isinstance(images, Images) else images[index]


def image_bytes(images: Tensor | Images) -> int:
    """The size in bytes of an image as a float tensor."""
    return images.shape[1:].numel() * images.dtype.itemsize


def load_if_small(images: Tensor | Images) -> Tensor | Images:
    """The images as a tensor if they fit into `MEMORY_LIMIT` bytes; otherwise unchanged."""
    if isinstance(images, Tensor):
        return images
    if len(images) * image_bytes(images) > MEMORY_LIMIT:
        # They will come in groups.
        give_large_arrays_back()
        return images
    whole = torch.empty(images.shape, dtype=images.dtype)
    for start in range(0, len(images), _CHUNK):
        whole[start : start + _CHUNK] = images[start : start + _CHUNK]
    return whole


def _index(index: Any) -> Any:
    if isinstance(index, Tensor):
        return index.cpu().numpy()
    if isinstance(index, Sequence):  # numpy gives an empty list a float dtype, and takes a tuple for several axes
        return np.asarray(index, dtype=np.int64)
    return index
