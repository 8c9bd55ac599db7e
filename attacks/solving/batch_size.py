"""The batch size, which is halved when memory runs out, and the meter: how full batches were, and what the stages took."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gauntlet.attacks.views.guard import generators_from


@dataclass
class Meter:
    """How full the batches were: number of `steps`, of `slots` that took part in them, and of slots that were available."""

    steps: int = 0
    slots: int = 0
    capacity: int = 0
    halved: int = 0
    """How often memory ran out and the batch was halved."""
    fitted: int | None = None
    """The smallest batch size after that; None if memory sufficed."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of each stage without verification, by its label. On a GPU, until its work was queued."""
    verifying: float = 0.0
    """Seconds of verification."""

    @contextmanager
    def stage(self, label: str) -> Iterator[None]:
        """The context's time is that of a stage, except for verification within it."""
        began, before = time.perf_counter(), self.verifying
        try:
            yield
        finally:
            spent = time.perf_counter() - began - (self.verifying - before)
            self.seconds[label] = self.seconds.get(label, 0.0) + spent

    @contextmanager
    def verification(self) -> Iterator[None]:
        """The context's time is verification's."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.verifying += time.perf_counter() - began

    @property
    def occupancy(self) -> float:
        """Share of the slots that were filled, over all steps."""
        return self.slots / self.capacity if self.capacity else 0.0


GROWTH = 1.6
"""By how much a pass of twice as many images may take longer for the larger batch to be worth it."""
MOST_USEFUL, LEAST_USEFUL = 256, 16
LONG = 0.1
"""Seconds of a pass from which arithmetic decides, not launches: larger batches are not tried, nor is the pass repeated."""
_useful: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()


def useful_batch(model: nn.Module, image: Tensor, most: int = MOST_USEFUL) -> int:
    """The smallest batch that is worth a pass of the model, from `LEAST_USEFUL` to `MOST_USEFUL`: measured once for a model.

    `image` (1, C, H, W), on the model's device. Batches are doubled until that takes longer by more than `GROWTH`, up to `most`,
    the largest batch that is attacked. It decides what runs side by side, no outcome.
    """
    if model not in _useful:
        count, largest = LEAST_USEFUL, min(most, MOST_USEFUL)
        # A model may take no batch of that size, or memory may run out: then nothing larger is tried.
        with suppress(Exception):
            before = _pass_seconds(model, image, min(count, largest))
            while before < LONG and 2 * count <= largest:
                seconds = _pass_seconds(model, image, 2 * count)
                if seconds > GROWTH * before:
                    break
                count, before = 2 * count, seconds
        _useful[model] = count
    return min(_useful[model], most)


def _pass_seconds(model: nn.Module, image: Tensor, count: int) -> float:
    """Seconds of a forward pass over so many images, the shorter of two; of one, if it is long.

    On a CPU those of the thread, which other programs on the machine do not lengthen.
    """
    batch = image.expand(count, *image.shape[1:]).contiguous()
    clock = time.thread_time if batch.device.type == "cpu" else time.perf_counter
    taken: list[float] = []
    while len(taken) < 2 and sum(taken) < LONG:
        began = clock()
        # A model that draws must not draw otherwise afterwards.
        with torch.no_grad(), generators_from(0):
            outputs = model(batch)
        if outputs.is_cuda:
            torch.cuda.synchronize(outputs.device)
        taken.append(clock() - began)
    return min(taken)


def halved(batch_size: int, error: RuntimeError, meter: Meter) -> int:
    """Half the batch size if `error` means that memory ran out. Raises any other error again, and that of a single image."""
    if batch_size == 1 or not is_out_of_memory(error):
        raise error
    meter.halved += 1
    meter.fitted = min(batch_size // 2, meter.fitted or batch_size)
    return batch_size // 2


def run_in_batches(run: Callable[[slice], Tensor], count: int, batch_size: int, meter: Meter) -> tuple[Tensor, int]:
    """`run` for each batch of `count` samples, its results (N, …) joined, and the batch size that fitted into memory."""
    parts: list[Tensor] = []
    start = 0
    while start < count:
        try:
            parts.append(run(slice(start, start + batch_size)))
            start += batch_size
        except RuntimeError as error:
            batch_size = halved(batch_size, error, meter)
    return torch.cat(parts), batch_size


def is_out_of_memory(error: Exception) -> bool:
    """Whether `error` means that memory ran out."""
    # torch has an exception class for GPUs only; on a CPU the text is all there is.
    if isinstance(error, torch.cuda.OutOfMemoryError):
        torch.cuda.empty_cache()
        return True
    return "DefaultCPUAllocator: can't allocate memory" in str(error)
