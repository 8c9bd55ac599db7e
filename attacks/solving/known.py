"""What the host knows of the slots without asking the device, and the two ways between host and device.

The host runs ahead of a GPU: it queues operations and waits only where it needs a value. Then the GPU has nothing to do until the
next operation arrives. So the loop counts on the host what it decides on itself, and asks for the rest in one read a step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Rows = npt.NDArray[np.int64]
"""Numbers of slots, int64 (N,), on the host."""
Truths = npt.NDArray[np.bool_]
"""bool (N,), on the host."""


class Known(NamedTuple):
    """Fields of `Slots` of the same names, as arrays (N,) on the host; int64 but for `nearness`, float64."""

    sample: Rows
    restart: Rows
    step: Rows
    forwards: Rows
    backwards: Rows
    mark: Rows
    """A number that the rule keeps for each slot on the host, 0 at the start of a restart."""
    rejected: Rows
    disagreements: Rows
    vanished: Rows
    sure: Rows
    nearest_class: Rows
    nearness: npt.NDArray[np.float64]
    """The last six: as of the latest `Slots.reported`."""


def known_start(sample: Rows) -> Known:
    """What is known of slots of these samples at their start."""
    zero = np.zeros_like(sample)
    return Known._make([sample, *[zero] * 9, zero - 1, np.full(len(sample), np.inf)])


def to_device(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """A copy on the device, for which the host does not wait."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(device, non_blocking=True)


def to_host(*values: Tensor) -> npt.NDArray[np.float64]:
    """Tensors of one shape (N,), all by a single wait for the device, (number, N) in float64: exact up to 2⁵³."""
    array: npt.NDArray[np.float64] = torch.stack([one.to(torch.float64) for one in values]).cpu().numpy()
    return array
