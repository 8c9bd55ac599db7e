"""How many samples native attacks take at once on a GPU: as many as make passes cheaper, within its memory.

What decides is measured once for a model on a device, with passes as attacks make them, and stored: it changes no verdict.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from gauntlet.attacks.solving.batch_size import is_out_of_memory
from gauntlet.attacks.views.guard import generators_from

MOST = 4096
"""Slots that are never exceeded: blocks are finished, and stored, the later the more samples run at once."""
GAIN = 1.05
"""Throughput by which a batch of twice the size must exceed that of the smaller one."""
SHARE = 0.8
"""Share of the memory that a pass and the slots may use."""
HELD = 24
"""Images that solver and rule hold for each slot, about: clean, current and best ones, gradients, and those between restarts."""
_REPEATS = 3


@dataclass(frozen=True)
class PassCost:
    """What a pass forward and back over a batch costs."""

    seconds: float
    used: int
    """Bytes of memory at its peak, everything included that stays there: weights, and what the slots hold."""
    total: int
    """Bytes that this process can have."""


Probe: TypeAlias = Callable[[int], PassCost]
"""The cost of a pass over so many images. Raises RuntimeError where memory runs out."""


def grown(probe: Probe, start: int) -> int:
    """The batch size from `start` on: doubled while throughput grows and memory allows, halved while it does not.

    Errors of the model are raised, and out-of-memory of a single image.
    """
    size = start
    while not _fits(cost := _cost(probe, size)):
        if size == 1:
            break
        size //= 2
    if cost is None or size < start:
        return size
    while 2 * size <= MOST:
        larger = _cost(probe, 2 * size)
        if larger is None or not _fits(larger) or 2 * cost.seconds < GAIN * larger.seconds:
            break
        size, cost = 2 * size, larger
    return size


def _cost(probe: Probe, size: int) -> PassCost | None:
    """None where memory runs out."""
    try:
        return probe(size)
    except RuntimeError as error:
        if size == 1 or not is_out_of_memory(error):
            raise
        return None


def _fits(cost: PassCost | None) -> bool:
    return cost is not None and cost.used <= SHARE * cost.total


def device_probe(model: nn.Module, device: torch.device, read: Callable[[], Tensor]) -> Probe | None:
    """Measures passes of `model` over copies of an image on `device`; None on a CPU, whose caches decide.

    `read`: gives the image (1, C, H, W). The shortest of a few passes counts. Generators are left as they are.
    """
    if device.type != "cuda":
        return None

    def probe(count: int) -> PassCost:
        image = read().to(device)
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        total = free + torch.cuda.memory_reserved(device)
        torch.cuda.reset_peak_memory_stats(device)
        batch = image.expand(count, *image.shape[1:]).contiguous()
        taken = []
        # A model that draws must not draw otherwise afterwards.
        with generators_from(0):
            for _ in range(_REPEATS):
                torch.cuda.synchronize(device)
                began = time.perf_counter()
                _pass(model, batch)
                torch.cuda.synchronize(device)
                taken.append(time.perf_counter() - began)
        held = HELD * count * image.numel() * image.element_size()
        return PassCost(min(taken), torch.cuda.max_memory_allocated(device) + held, total)

    return probe


def _pass(model: nn.Module, batch: Tensor) -> None:
    """Forward, and back where a gradient reaches the images."""
    with torch.enable_grad():
        images = batch.detach().requires_grad_()
        outputs = model(images)
        if outputs.requires_grad:
            torch.autograd.grad(outputs.sum(), images, allow_unused=True)


def memory_name(device: torch.device) -> str:
    """The device's name with its memory, by which measurements are remembered."""
    if device.type != "cuda":
        return str(device)
    return f"{torch.cuda.get_device_name(device)} {torch.cuda.get_device_properties(device).total_memory >> 30} GiB"
