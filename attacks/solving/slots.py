"""Slots: the samples under attack, as named tuples of tensors whose leading dimension is the slot."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from gauntlet.attacks.solving.known import Known, Rows, Truths, known_start, to_device, to_host

S = TypeVar("S", bound="tuple[Any, ...]")
RANKED = 9
"""Number of classes that a stage may rank for later stages."""


class Slots(NamedTuple):
    """What the solver keeps for each slot. All tensors have length N and are on the attack's device; `known` is on the host."""

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
    sure: Tensor
    """bool, whether `point` is surely misclassified (`gauntlet.attacks.ops.certainty`); False where that is not asked."""
    distance: Tensor
    """float64, of `point`; infinite before the first success of a minimum-norm rule."""
    rejected: Tensor
    disagreements: Tensor
    nearness: Tensor
    """The least `stage_conditions.nearness` of all points evaluated inside the ball; infinite unless conditions are watched."""
    nearest_class: Tensor
    """int64, the wrong class of the largest logit at the point of `nearness`; -1 before the first."""
    rival: Tensor
    """int64, the class that earlier stages came nearest to; -1 where it is not known, or plays no part in this stage."""
    order: Tensor
    """int64 (N, RANKED), the classes that a stage ranked first, -1 where there are fewer; (N, 0) if no stage ranks any."""
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
    known: Known

    def passed(self, backwards: int) -> Slots:
        """The slots after a forward pass, and so many backward passes."""
        known = self.known
        return self._replace(
            forwards=self.forwards + 1,
            backwards=self.backwards + backwards,
            known=known._replace(forwards=known.forwards + 1, backwards=known.backwards + backwards),
        )

    def stepped(self) -> Slots:
        """The slots after a step."""
        return self._replace(step=self.step + 1, known=self.known._replace(step=self.known.step + 1))

    def ranked(self, order: Tensor) -> Slots:
        """The slots with the classes that later stages are to attack first, if any stage ranks them."""
        return self._replace(order=order) if self.order.shape[1] else self

    def restarted(self, restart: Rows) -> Slots:
        """The slots at the start of these restarts, (N,)."""
        zero = np.zeros_like(restart)
        return self._replace(
            restart=to_device(restart, self.restart.device),
            step=torch.zeros_like(self.step),
            known=self.known._replace(restart=restart, step=zero, mark=zero),
        )

    def reported(self, truth: Tensor) -> tuple[Slots, Truths]:
        """The slots with all counts known to the host, and `truth`, bool (N,), on the host: one wait for the device."""
        counts = self.rejected, self.disagreements, self.vanished, self.sure, self.nearest_class
        *rows, nearness, truths = to_host(*counts, self.nearness, truth)
        rejected, disagreements, vanished, sure, nearest_class = (one.astype(np.int64) for one in rows)
        known = self.known._replace(
            rejected=rejected,
            disagreements=disagreements,
            vanished=vanished,
            sure=sure,
            nearest_class=nearest_class,
            nearness=nearness,
        )
        return self._replace(known=known), truths > 0


def new_slots(
    sample: Tensor,
    clean: Tensor,
    labels: Tensor,
    targets: Tensor,
    clean_logits: Tensor,
    keys: Tensor,
    model_keys: Tensor,
    ends: Tensor | None = None,
    rival: Tensor | None = None,
    order: Tensor | None = None,
    *,
    keep_end: bool = False,
    known: Rows | None = None,
) -> Slots:
    """Slots at their start, with all counts 0 and no candidate. `known`: `sample` on the host, if it is known there."""
    names = to_host(sample)[0].astype(np.int64) if known is None else known
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
        sure=zero.bool(),
        distance=unknown,
        rejected=zero,
        disagreements=zero,
        nearness=torch.full(sample.shape, torch.inf, device=sample.device),
        nearest_class=zero - 1,
        rival=zero - 1 if rival is None else rival,
        order=zero.new_empty(len(clean), 0) if order is None else order,
        vanished=zero,
        end=clean if keep_end else nothing,
        least=unknown,
        ends=nothing if ends is None else ends,
        gap=unknown,
        gap_before=unknown,
        known=known_start(names),
    )


def select(state: S, rows: Tensor | Rows) -> S:
    """The slots at `rows` (int64), as a new tuple; of `Slots` themselves by rows that the host knows. All in order: `state`."""
    if isinstance(rows, np.ndarray) and len(rows) == _count(state) and (rows == np.arange(len(rows))).all():
        return state
    at = _on_device(state, rows)
    return type(state)(*(field[at] if isinstance(field, Tensor) else _chosen(field, rows) for field in state))


def put(state: S, rows: Tensor | Rows, new: S) -> S:
    """`state` with the slots at `rows` replaced by those of `new`, as a new tuple; the tensors of `state` are unchanged."""
    at = _on_device(state, rows)
    return type(state)(
        *(
            old.index_copy(0, at, fresh) if isinstance(old, Tensor) else _exchanged(old, rows, fresh)
            for old, fresh in zip(state, new, strict=True)
        )
    )


def join(first: S, second: S) -> S:
    """The slots of both."""
    return type(first)(
        *(
            torch.cat(pair)
            if isinstance(pair[0], Tensor)
            else Known._make(map(np.concatenate, zip(*pair, strict=True)))
            for pair in zip(first, second, strict=True)
        )
    )


def _count(state: tuple[Any, ...]) -> int:
    """Number of slots of a state, -1 where it has no fields."""
    return next((len(one) for one in state if isinstance(one, Tensor)), -1)


def _on_device(state: tuple[Any, ...], rows: Tensor | Rows) -> Tensor:
    if isinstance(rows, Tensor):
        return rows
    return to_device(rows, next((one.device for one in state if isinstance(one, Tensor)), torch.device("cpu")))


def _chosen(known: Known, rows: Any) -> Known:
    return Known._make(one[rows] for one in known)


def _exchanged(known: Known, rows: Any, new: Known) -> Known:
    fields = [one.copy() for one in known]
    for field, fresh in zip(fields, new, strict=True):
        field[rows] = fresh
    return Known._make(fields)
