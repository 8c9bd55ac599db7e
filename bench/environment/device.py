"""Choosing a device, and measuring memory on it."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from gauntlet.bench.config.schema import ConfigError


def choose_device(name: str) -> torch.device:
    """The device `auto` (a GPU if available, else the CPU), `cpu`, `cuda` or `cuda:N`.

    Raises ConfigError for an unknown or unavailable device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} is unknown: use auto, cpu, cuda or cuda:1") from error
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(
            f"device {name!r} is not available: {torch.cuda.device_count()} GPUs are visible; use auto or cpu"
        )
    return device


@dataclass
class Peak:
    """The peak memory within `peak_memory`, in MiB, as of the last `update`."""

    device: torch.device
    mib: float = 0.0

    def update(self) -> None:
        """Read the peak so far."""
        on_gpu = self.device.type == "cuda"
        self.mib = (torch.cuda.max_memory_allocated(self.device) if on_gpu else _high_water_mark()) / 2**20


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Measure the peak memory of a `with` block: of the GPU's allocator, or the resident memory of the whole process."""
    peak = Peak(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _reset_high_water_mark()
    try:
        yield peak
    finally:
        peak.update()


def _reset_high_water_mark() -> None:
    # Linux only; elsewhere the mark covers the whole life of the process.
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _high_water_mark() -> int:
    try:
        match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if match:
            return int(match[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
