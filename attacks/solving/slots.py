"""Slots: the samples under attack, as named tuples of tensors whose leading dimension is the slot."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

S = TypeVar("S", bound="tuple[Any, ...]")


class Slots(NamedTuple):
    """What the solver keeps for each slot. All tensors have length N and are on the attack's device."""

    sample: Tensor
    """int64, the sample's index in the task."""
    clean: Tensor
    labels: Tensor
    targets: Tensor
    """int64, the class to reach; the label in untargeted attacks."""
    clean_logits: Tensor
    """(N, K), the model's logits of `clean`; (N, 0) if they are not known."""
    keys: Tensor
    """int64, key of the attack's random numbers."""
    model_keys: Tensor
    """int64, key of the random numbers of a randomised model."""
    restart: Tensor
    step: Tensor
    """int64, completed steps of this restart."""
    forwards: Tensor
    backwards: Tensor
    found: Tensor
    """bool, whether `point` waits for verification."""
    point: Tensor
    """The candidate: the latest misclassified point (towards a class: the latest point classified as the target); for
    minimum-norm rules the closest such point."""
    distance: Tensor
    """float64, of `point`; infinite before the first success of a minimum-norm rule."""
    rejected: Tensor
    disagreements: Tensor
    nearness: Tensor
    """The least `stage_conditions.nearness` of all points evaluated inside the ball; infinite unless conditions are watched."""
    vanished: Tensor
    """int64, number of gradients that were zero or not finite everywhere."""
    end: Tensor
    """The point of the least margin so far, the latest of equal ones; (N, 0) unless it is kept."""
    least: Tensor
    """float64, the margin of `end`; infinite before the first point."""
    ends: Tensor
    """(N, k, C, H, W), where earlier stages ended, see `gauntlet.attacks.solving.ends`; (N, 0) for rules that use none."""
    gap: Tensor
    gap_before: Tensor
    """float64, the least gap so far, and that at the latest look, see `gauntlet.attacks.solving.patience`."""


def new_slots(
    sample: Tensor,
    clean: Tensor,
    labels: Tensor,
    targets: Tensor,
    clean_logits: Tensor,
    keys: Tensor,
    model_keys: Tensor,
    ends: Tensor | None = None,
    *,
    keep_end: bool = False,
) -> Slots:
    """Slots at their start, with all counts 0 and no candidate."""
    zero, nothing = torch.zeros_like(sample), clean.new_empty(len(clean), 0)
    unknown = torch.full(sample.shape, torch.inf, dtype=torch.float64, device=sample.device)
    return Slots(
        sample,
        clean,
        labels,
        targets,
        clean_logits,
        keys,
        model_keys,
        restart=zero,
        step=zero,
        forwards=zero,
        backwards=zero,
        found=zero.bool(),
        point=clean,
        distance=unknown,
        rejected=zero,
        disagreements=zero,
        nearness=torch.full(sample.shape, torch.inf, device=sample.device),
        vanished=zero,
        end=clean if keep_end else nothing,
        least=unknown,
        ends=nothing if ends is None else ends,
        gap=unknown,
        gap_before=unknown,
    )


def select(state: S, rows: Tensor) -> S:
    """The slots at `rows` (int64), as a new tuple."""
    return type(state)(*(field[rows] for field in state))


def put(state: S, rows: Tensor, new: S) -> S:
    """`state` with the slots at `rows` replaced by those of `new`, as a new tuple; the tensors of `state` are unchanged."""
    return type(state)(*(old.index_copy(0, rows, fresh) for old, fresh in zip(state, new, strict=True)))


def join(first: S, second: S) -> S:
    """The slots of both."""
    return type(first)(*(torch.cat(pair) for pair in zip(first, second, strict=True)))
