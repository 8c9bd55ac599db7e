"""Passes over one point with several draws of a randomised model, of which an example has to win the majority.

`frozen` draws are the same in every call; fresh ones never come again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from gauntlet.attacks.ops.losses import Loss
from gauntlet.attacks.solving.oracle import Gradient, Oracle

R = TypeVar("R")


def drawn_gradients(oracle: Oracle, x: Tensor, loss: Loss, count: int, *, frozen: bool = False) -> list[Gradient]:
    """`count` times `Oracle.gradient` at `x` (N, C, H, W), each with other draws.

    `x` is a candidate only where at least half of the passes are misclassified: a point that won a single draw costs many passes
    to refuse.
    """
    return _drawn(oracle, x, count, frozen, lambda: oracle.gradient(x, loss))


def drawn_logits(oracle: Oracle, x: Tensor, count: int, *, frozen: bool = False) -> list[Tensor]:
    """`count` times `Oracle.logits` at `x` (N, C, H, W); a candidate as in `drawn_gradients`."""
    return _drawn(oracle, x, count, frozen, lambda: oracle.logits(x))


def _drawn(oracle: Oracle, x: Tensor, count: int, frozen: bool, make: Callable[[], R]) -> list[R]:
    successes: list[Tensor] = []
    passes = []
    oracle.successes = successes
    try:
        for number in range(count):
            oracle.frozen = number if frozen else None
            passes.append(make())
    finally:
        oracle.successes = oracle.frozen = None
    oracle.keep(2 * torch.stack(successes).sum(0) >= count, x)
    return passes
