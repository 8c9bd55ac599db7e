"""Passes over one point with several draws of a randomised model, of which an example has to win the majority.

`frozen` draws are the same in every call; fresh ones never come again. Draws of a model that draws by key
(`gauntlet.attacks.views.keyed_draws`) are made in one pass as far as the oracle has room: they are the same draws.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from gauntlet.attacks.ops.losses import Loss
from gauntlet.attacks.solving.oracle import Gradient, Oracle
from gauntlet.attacks.solving.slots import Slots, select
from gauntlet.attacks.views.keyed_draws import draws_by_key

R = TypeVar("R")


def drawn_gradients(oracle: Oracle, x: Tensor, loss: Loss, count: int, *, frozen: bool = False) -> list[Gradient]:
    """`count` times `Oracle.gradient` at `x` (N, C, H, W), each with other draws.

    `x` is a candidate only where at least half of the passes are misclassified: a point that won a single draw costs many passes
    to refuse.
    """
    size = len(x)

    def each(logits: Tensor, labels: Tensor) -> Tensor:
        # The loss may know the slots.
        return torch.cat([loss(*part) for part in zip(logits.split(size), labels.split(size), strict=True)])

    def passes(one: Oracle, points: Tensor) -> list[Gradient]:
        made = one.gradient(points, each)
        return [Gradient(*part) for part in zip(*(field.split(size) for field in made), strict=True)]

    return _drawn(oracle, x, count, frozen, passes)


def drawn_logits(oracle: Oracle, x: Tensor, count: int, *, frozen: bool = False) -> list[Tensor]:
    """`count` times `Oracle.logits` at `x` (N, C, H, W); a candidate as in `drawn_gradients`."""
    return _drawn(oracle, x, count, frozen, lambda one, points: list(one.logits(points).split(len(x))))


def _drawn(oracle: Oracle, x: Tensor, count: int, frozen: bool, make: Callable[[Oracle, Tensor], list[R]]) -> list[R]:
    successes: list[Tensor] = []
    passes: list[R] = []
    oracle.successes = successes
    together = _together(oracle, count)
    try:
        for number in range(0, count, together):
            many = min(together, count - number)
            oracle.frozen = number if frozen else None
            passes += make(oracle, x) if many == 1 else _in_one_pass(oracle, x, many, make)
    finally:
        oracle.successes = oracle.frozen = None
    oracle.keep(2 * torch.cat(successes).view(count, -1).sum(0) >= count, x)
    return passes


def _together(oracle: Oracle, count: int) -> int:
    """How many draws may be made in one pass."""
    most = min(count, oracle.room // max(1, len(oracle.clean)))
    if most < 2 or oracle.judge is not None or oracle.backward != "true" or oracle.minimum_norm:
        return 1
    return most if draws_by_key(oracle.model, oracle.clean, oracle.slots.model_keys) else 1


def _in_one_pass(oracle: Oracle, x: Tensor, many: int, make: Callable[[Oracle, Tensor], list[R]]) -> list[R]:
    """The next `many` draws, by an oracle that has each slot so many times; its counts are added to those of the slots."""
    slots, size = oracle.slots, len(x)
    number = torch.arange(many, device=x.device).repeat_interleave(size)
    wide = copy.copy(oracle)
    wide.frozen = None
    # The step of the model's draws: the number of a frozen one, else that of the passes.
    step = number + (slots.forwards.repeat(many) if oracle.frozen is None else oracle.frozen)
    wide.slots = select(slots, np.tile(np.arange(size), many))._replace(forwards=step)
    made = make(wide, x.repeat(many, *[1] * (x.dim() - 1)))
    oracle.slots = _joined(slots, wide.slots, many)
    return made


def _joined(before: Slots, wide: Slots, many: int) -> Slots:
    """The slots after `many` passes, from those in which each has `many` places with a pass each."""
    size, known = len(before.sample), before.known
    rows = torch.arange(size, device=before.sample.device)
    backwards = int(wide.known.backwards[0] - known.backwards[0])
    nearest, near = wide.nearness.view(many, size).min(0)
    least, place = wide.least.view(many, size).min(0)
    end = wide.end if wide.end.dim() < 3 else wide.end.unflatten(0, (many, size))[place, rows]
    return before._replace(
        forwards=before.forwards + many,
        backwards=before.backwards + many * backwards,
        vanished=before.vanished + (wide.vanished.view(many, size) - before.vanished).sum(0),
        nearness=nearest,
        nearest_class=wide.nearest_class.view(many, size)[near, rows],
        end=end,
        least=least,
        known=known._replace(forwards=known.forwards + many, backwards=known.backwards + many * backwards),
    )
