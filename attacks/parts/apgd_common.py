"""What both Auto-PGDs, `apgd` and `apgd_l1`, share: losses by name, the class to reach, and the mean of several passes."""

from __future__ import annotations

import torch
from torch import Tensor

from gauntlet.attacks.ops.dlr import TARGETED, UNTARGETED
from gauntlet.attacks.ops.losses import Loss
from gauntlet.attacks.ops.validators import one_of
from gauntlet.attacks.solving.oracle import Oracle


def loss_name(name: str) -> str:
    """`name` with hyphens read as underscores. Raises ValueError that lists the losses where there is none of that name."""
    known = name.replace("-", "_") if isinstance(name, str) else name
    one_of("loss", known, [*UNTARGETED, *TARGETED])
    return known


def likely_target(oracle: Oracle, targets: int) -> Tensor:
    """The class to reach, int64 (N,), by one forward pass of the clean image: the likeliest `targets` wrong classes in turn,
    one a try of each slot."""
    wrong = oracle.clean_logits().scatter(1, oracle.labels[:, None], -torch.inf)
    ranks = min(targets, wrong.shape[1] - 1)
    return wrong.topk(ranks, dim=1).indices.gather(1, oracle.restart[:, None] % ranks).squeeze(1)


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
