"""Parts of Auto-PGD (`apgd`, `apgd_l1`): losses by name, the class to reach, the mean of several passes, checkpoints."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from gauntlet.attacks.ops.dlr import TARGETED, UNTARGETED
from gauntlet.attacks.ops.losses import Loss
from gauntlet.attacks.ops.validators import one_of
from gauntlet.attacks.solving.known import to_device
from gauntlet.attacks.solving.oracle import Oracle


def loss_name(name: str) -> str:
    """`name` with underscores for hyphens. Raises ValueError that lists the losses for an unknown name."""
    known = name.replace("-", "_") if isinstance(name, str) else name
    one_of("loss", known, [*UNTARGETED, *TARGETED])
    return known


def likely_target(oracle: Oracle, targets: int) -> Tensor:
    """The class to reach, int64 (N,), by one forward pass of the clean image: one of the `targets` most likely wrong classes,
    the next at each restart. The first is the class that earlier stages came nearest to (`Slots.rival`), then those that a stage
    has ranked (`Slots.order`), where they are known."""
    wrong = oracle.clean_logits().scatter(1, oracle.labels[:, None], -torch.inf)
    ranks = min(targets, wrong.shape[1] - 1)
    classes = torch.cat([oracle.slots.rival[:, None], oracle.slots.order, wrong.topk(ranks, dim=1).indices], 1)
    again = (classes[:, :, None] == classes[:, None, :]).tril(-1).any(2)
    place = (~again & (classes >= 0)).cumsum(1)
    # The first class at which the count reaches the number of the restart is not one that occurred before.
    due = (place == oracle.restart[:, None] % ranks + 1).to(torch.int64).argmax(1, keepdim=True)
    return classes.gather(1, due).squeeze(1)


def mean_pass(oracle: Oracle, x: Tensor, loss: str, target: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean loss (N,) in float64 and mean gradient (N, C, H, W) at `x` of `count` passes; `target` (N,) for targeted losses."""
    passes = [oracle.gradient(x, _towards(loss, target)) for _ in range(count)]
    values = [one.value.to(torch.float64) for one in passes]
    if count == 1:
        return values[0], passes[0].gradient
    return torch.stack(values).mean(0), torch.stack([one.gradient for one in passes]).mean(0)


def _towards(loss: str, target: Tensor) -> Loss:
    if loss in UNTARGETED:
        return UNTARGETED[loss]
    return lambda logits, labels: TARGETED[loss](logits, labels, target)


def checkpoint_period(step: Tensor, steps: int) -> Tensor:
    """Number of steps since the previous checkpoint for slots with a checkpoint after `step` of `steps` steps, else 0.

    `step` and the result are int64 (N,). Croce and Hein 2020 (arXiv 2003.01690), section 3: the first period is 22 % of the
    steps; each is 3 % shorter than the one before, and at least 6 %.
    """
    return _periods(steps, step.device)[step]


@lru_cache
def checkpoints(steps: int) -> tuple[int, ...]:
    """`checkpoint_period` after 0, 1, … `steps` steps."""
    period, shorter, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    due, at = [0] * (steps + 1), period
    while at <= steps:
        due[at] = period
        period = max(period - shorter, least)
        at += period
    return tuple(due)


@lru_cache
def _periods(steps: int, device: torch.device) -> Tensor:
    return to_device(np.array(checkpoints(steps)), device)
