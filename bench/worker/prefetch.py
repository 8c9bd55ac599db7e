"""Images of the next blocks, read by a thread while the present blocks are attacked: two groups of blocks are in memory."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Event

import torch
from torch import Tensor

from gauntlet.bench.data.samples.lazy_images import Images

_CHUNK = 64
"""Images that are read at once: between two such parts a thread sees that its images are no longer wanted."""


def prefetched(images: Tensor | Images, groups: Sequence[Sequence[int]], device: torch.device) -> Generator[Tensor]:
    """The images (N, C, H, W) of each group of indices, on `device`, in order.

    While the caller works with a group, a thread reads the next one; to a GPU images are copied from pinned memory. Images of a
    user's data set are read by the calling thread, as their code may expect. An error of reading is raised where its group is
    asked for. Close the generator in every case: that ends the thread.
    """
    stop = Event()
    aside = not isinstance(images, Images) or images.any_thread
    if len(groups) < 2 or not aside:
        for group in groups:
            yield _read(images, group, device, stop).to(device, non_blocking=True)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="gauntlet-read") as pool:
        following = pool.submit(_read, images, groups[0], device, stop)
        try:
            for number in range(len(groups)):
                host = following.result()
                if number + 1 < len(groups):
                    following = pool.submit(_read, images, groups[number + 1], device, stop)
                on_device = host.to(device, non_blocking=True)
                del host
                yield on_device
                del on_device
        finally:
            stop.set()


def _read(images: Tensor | Images, rows: Sequence[int], device: torch.device, stop: Event) -> Tensor:
    """The images at `rows` in the host's memory, pinned for a GPU; not all of them once `stop` is set."""
    host = _host_memory((len(rows), *images.shape[1:]), images.dtype, device)
    for start in range(0, len(rows), _CHUNK):
        if stop.is_set():
            break
        host[start : start + _CHUNK] = images[list(rows[start : start + _CHUNK])]
    return host


def _host_memory(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return torch.empty(shape, dtype=dtype)
    # Pinned memory belongs to the context of the thread's current device.
    with torch.cuda.device(device) if device.index is not None else nullcontext():
        try:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        except RuntimeError:
            # The system may limit how much can be pinned.
            return torch.empty(shape, dtype=dtype)
