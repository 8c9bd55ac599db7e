"""Losses that attacks increase: (logits (N, K), labels (N,)) → (N,); a larger loss is closer to an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from gauntlet.attacks.ops.validators import one_of

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def largest_other(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest logit among the classes other than the label, (N,), also for negative logits and for 2 classes."""
    masked = logits.scatter(1, labels[:, None], -torch.inf)
    return masked.amax(1)


def likeliest_other(logits: Tensor, labels: Tensor) -> Tensor:
    """The class of the largest logit of any class but the label, int64 (N,)."""
    return logits.scatter(1, labels[:, None], -torch.inf).argmax(1)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the label minus the largest other logit, (N,): negative where the sample is misclassified."""
    return logits.gather(1, labels[:, None]).squeeze(1) - largest_other(logits, labels)


def misclassified(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the first of the largest logits is not the label's, bool (N,): what oracle and verifier count, ties included."""
    return logits.argmax(1) != labels


def ce(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy."""
    return cross_entropy(logits, labels, reduction="none")


def cw(logits: Tensor, labels: Tensor) -> Tensor:
    """The margin loss of Carlini and Wagner (2017, f6 without confidence): largest other logit minus the label's."""
    return -margin(logits, labels)


LOSSES: dict[str, Loss] = {"ce": ce, "cw": cw}


def named_loss(name: str) -> Loss:
    """The loss of that name. Raises ValueError that lists the names."""
    one_of("loss", name, LOSSES)
    return LOSSES[name]
