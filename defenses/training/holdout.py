"""Held-out samples, and robust accuracy on them, which shows robust overfitting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.defenses.training.inner_attack import ascend, evaluating, uniform_start

STEPS = 10


@dataclass(frozen=True)
class Accuracy:
    """Numbers of samples, of `n`, that are classified correctly clean, and also after PGD."""

    clean: int
    robust: int
    n: int


def hold_out(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (int64) of the samples to train on, and of those to hold out: a random `share` of every class.

    Raises ValueError for a share outside (0, 1), and if one of the two sets is empty.
    """
    if not 0 < share < 1:
        raise ValueError(
            f"hold-out {share!r} must be between 0 and 1, as a share of the training samples, for instance 0.1"
        )
    generator = torch.Generator().manual_seed(seed)
    held = []
    for label in labels.cpu().unique():
        rows = (labels.cpu() == label).nonzero()[:, 0]
        order = torch.randperm(len(rows), generator=generator)
        held.append(rows[order[: round(share * len(rows))]])
    out = torch.cat(held).sort().values
    keep = torch.ones(len(labels), dtype=torch.bool)
    keep[out] = False
    if not len(out) or not keep.any():
        raise ValueError(
            f"hold-out {share!r} of {len(labels)} samples leaves {int(keep.sum())} samples to train on and {len(out)} held out"
        )
    return keep.nonzero()[:, 0], out


def measure(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    batch_size: int = 250,
    device: torch.device | None = None,
) -> Accuracy:
    """Accuracy on clean images (N, C, H, W) in [0, 1] and after PGD: 10 steps of eps / 4, one random start.

    The model is in eval mode meanwhile; random numbers come from `seed` alone, drawn on `device` (default: the images').
    The result is an upper bound for the comparison of epochs; use `gauntlet run` to evaluate a model.
    """
    place = images.device if device is None else device
    generator = torch.Generator(place).manual_seed(seed)
    clean = robust = 0
    with evaluating(model):
        for part, part_labels in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            x, y = part.to(place), part_labels.to(place)
            right = _right(model, x, y)
            point = uniform_start(x, threat, generator)
            for _ in range(STEPS):
                point = ascend(point, x, _cross_entropy_at(model, y), 2.5 * threat.eps / STEPS, threat)
            clean += int(right.sum())
            robust += int((right & _right(model, point, y)).sum())
    return Accuracy(clean, robust, len(labels))


def _right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        prediction: Tensor = model(x).argmax(1)
    return prediction == y


def _cross_entropy_at(model: nn.Module, y: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda at: cross_entropy(model(at), y, reduction="sum")
