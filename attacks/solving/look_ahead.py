"""Several moves of a search in one pass: the moves that would follow if the earlier ones of them gained nothing.

A search without gradients draws its moves by its steps, not by what it gained, and late in a search most moves gain nothing. So
where few slots run, the next moves from the same point are evaluated together. What counts is what they give one after another:
all up to the first that gains or is a candidate. Later ones were evaluated for nothing, and their passes are counted apart.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gauntlet.attacks.solving.known import Rows, to_device
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.slots import Slots, select
from gauntlet.attacks.solving.stage_state import StageQueue

_MOST = 16
"""Moves of a slot that a step evaluates at most."""
_ROOM = 2
"""Of the smallest useful batch, as many images in a pass: what is done around a pass costs as much as a small one."""


def allow(queue: StageQueue, oracle: Oracle, useful: Callable[[], int] | None) -> None:
    """Let the next step evaluate several moves of each slot: up to `_ROOM` useful batches, and twice as many as counted last.

    Not in the first step of a restart, which evaluates its start.
    """
    rule, patience, made = queue.stage.rule, queue.stage.patience, oracle.made
    if not rule.looks_ahead or useful is None or not made.all():
        return
    room = min(_ROOM * useful(), oracle.room) // len(made)
    oracle.ahead = int(max(1, min(room, 2 * queue.pace, _MOST)))
    oracle.horizon = rule.budget - made
    if patience:
        # The steps at which samples are looked at are not passed by.
        oracle.horizon = np.minimum(oracle.horizon, patience - made % patience)


def note(queue: StageQueue, oracle: Oracle, slots: Slots, extra: Rows) -> Slots:
    """The slots with what the host learns of the step: `extra`, the steps (N,) of each slot beyond the first.

    Notes how many moves counted, and the passes of the others.
    """
    if oracle.extra is None:
        return slots
    queue.pace = 1 + float(extra.mean())
    known, spent = slots.known, queue.lanes.spent
    for sample, wasted in zip(known.sample.tolist(), (oracle.ahead - 1 - extra).tolist(), strict=True):
        spent[sample] = spent.get(sample, 0.0) + wasted
    return slots._replace(known=known._replace(step=known.step + extra, forwards=known.forwards + extra))


def widened(oracle: Oracle) -> Oracle:
    """An oracle that has each slot `oracle.ahead` times in a row; its counts and candidates are not those of the slots."""
    wide = copy.copy(oracle)
    wide.slots = select(oracle.slots, np.arange(len(oracle.made)).repeat(oracle.ahead))
    wide.successes = []
    return wide


def taken(oracle: Oracle, wide: Oracle, gains: Tensor, points: Tensor) -> Tensor:
    """The row of `wide`, int64 (N,), at which each slot arrives, after a pass over `points` (N · ahead, C, H, W).

    `gains`: where the search goes on from the point, bool (N · ahead,). Counts, nearness and candidates of `oracle` are then
    those of single passes, and its slots stand further by all steps but the one that the solver adds. The host is not told yet.
    """
    slots, size, device = oracle.slots, len(oracle.made), gains.device
    (success,) = wide.successes or (gains,)
    last = to_device(np.minimum(oracle.horizon, oracle.ahead) - 1, device)
    place = torch.arange(oracle.ahead, device=device)
    stops = (gains | success).view(size, -1) | (place >= last[:, None])
    extra = stops.to(torch.int8).argmax(1)
    rows = torch.arange(size, device=device) * oracle.ahead + extra
    oracle.extra = extra
    oracle.slots = slots._replace(
        step=slots.step + extra,
        forwards=slots.forwards + extra + 1,
        nearness=wide.slots.nearness[rows],
        nearest_class=wide.slots.nearest_class[rows],
        known=slots.known._replace(forwards=slots.known.forwards + 1),
    )
    oracle.keep(success[rows], points[rows])
    return rows
