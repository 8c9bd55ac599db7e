"""The losses of APGD: untargeted (logits (N, K), labels (N,)) → (N,), targeted (logits, labels, targets (N,)) → (N,).

The difference-of-logits-ratio losses are those of Croce and Hein, "Reliable evaluation of adversarial robustness with an
ensemble of diverse parameter-free attacks", ICML 2020 (arXiv 2003.01690), section 4. A ratio of logits does not change when all
logits are multiplied by a number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from gauntlet.attacks.ops.losses import LOSSES, Loss, ce, cw

TargetedLoss: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]

_TINY = 1e-12
"""Keeps the ratio finite if the logits of the denominator are equal; the authors' value."""


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """(largest other logit − label's) / (largest − third largest): at least −1, and at most 0 for correct predictions.

    With two classes there is no third logit, and the loss is the margin `cw`, which is then also `log_odds`.
    """
    if logits.shape[1] < 3:
        return cw(logits, labels)
    top = logits.topk(3, dim=1).values
    return cw(logits, labels) / (top[:, 0] - top[:, 2] + _TINY)


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """log((1 − p) / p) for the label's probability p: cross-entropy on a scale on which it cannot saturate.

    It increases strictly with cross-entropy, so that it orders points alike and its gradient has the same direction. If p
    rounds to 1 and the gradient of cross-entropy to 0, this gradient is still exact.
    """
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.logsumexp(1) - logits.gather(1, labels[:, None]).squeeze(1)


def probability_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Largest other probability minus the label's: Xie et al., CVPR 2025 (arXiv 2411.15210), the loss of PMA.

    Its gradient vanishes where the label's probability rounds to 1, as that of cross-entropy does.
    """
    return cw(logits.softmax(1), labels)


def scaled_ce(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the logits divided by the distance of the two largest ones, a constant for the gradient.

    So that rounding leaves a gradient however confident the model is: Yu and Xu (MIFPE), CVPR 2023, with their factor of 1.
    Losses of points at which the distance differs are not on the same scale.
    """
    top = logits.detach().topk(2, dim=1).values
    return ce(logits / (top[:, :1] - top[:, 1:]).clamp_min(_TINY), labels)


def cw_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The target's logit minus the label's."""
    return (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)


def ce_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The logarithm of the target's probability."""
    return -cross_entropy(logits, targets, reduction="none")


def dlr_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """(target's logit − label's) / (largest − mean of the third and fourth largest).

    With three classes there is no fourth logit, and with the third in its place the ratio would be −1 everywhere for the least
    likely target. With fewer than four classes the loss is `cw_targeted`. Its gradient never vanishes either, and APGD makes
    the same steps if it is multiplied by a number.
    """
    if logits.shape[1] < 4:
        return cw_targeted(logits, labels, targets)
    top = logits.topk(4, dim=1).values
    return cw_targeted(logits, labels, targets) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + _TINY)


UNTARGETED: dict[str, Loss] = {**LOSSES, "dlr": dlr, "log_odds": log_odds, "pm": probability_margin, "mifpe": scaled_ce}
TARGETED: dict[str, TargetedLoss] = {
    "ce_targeted": ce_targeted,
    "cw_targeted": cw_targeted,
    "dlr_targeted": dlr_targeted,
}
MARGINS = ("cw", "dlr", "cw_targeted", "dlr_targeted")
"""Losses that are above 0 where the model is misled, below where it is right, and 0 on the boundary."""
