"""Random numbers of randomised defenses."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gauntlet.attacks.ops.random import Draws, active_draws

# Tags separate these numbers from those that an attack draws for the same sample and step.
INPUT_NOISE, RESIZE_PAD, TOTAL_VARIATION, OUTPUT_NOISE, SELECTION, ESTIMATION, EXPECTATION = range(192, 199)


def draws_for(batch: Tensor) -> Draws:
    """The draws for the rows of a batch, on its device.

    With draws from the caller (`gauntlet.attacks.ops.random.model_randomness`), the same sample at the same step gets the same
    numbers in any batch. Without them, keys come from torch's global generator. Raises ValueError if the draws are for another
    number of samples.
    """
    draws = active_draws()
    if draws is None:
        keys = torch.randint(2**63 - 1, (len(batch),), dtype=torch.int64)
        return Draws.start(keys.to(batch.device))
    if len(draws.keys) != len(batch):
        raise ValueError(f"draws for {len(draws.keys)} samples do not fit a batch of {len(batch)}: pass one key each")
    device = batch.device
    return replace(draws, keys=draws.keys.to(device), restart=draws.restart.to(device), step=draws.step.to(device))


def child_keys(draws: Draws, count: int, tag: int) -> Tensor:
    """Keys of `count` independent streams per sample, int64 (N, count), for many draws at the same step."""
    low, high = draws.bits(2 * count, tag).view(len(draws.keys), count, 2).unbind(2)
    return low | (high >> 1) << 32
