"""L1-APGD: Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", ICML 2021."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gauntlet.attacks.ops.dlr import TARGETED
from gauntlet.attacks.ops.l1_ball import project_l1, sparse_ascent
from gauntlet.attacks.ops.norms import per_image
from gauntlet.attacks.ops.validators import boolean, whole_number
from gauntlet.attacks.parts.apgd_common import likely_target, loss_name, mean_pass
from gauntlet.attacks.solving.known import to_device
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule

_REDUCTION = 1.5
"""Divisor of the step size if the best point has not become sparser."""
_SMALLEST = 0.1
"""The smallest step, as a share of the radius; the largest is 1."""


class State(NamedTuple):
    """One ascent; leading dimension: the slot. Images are (N, C, H, W), all other fields (N,)."""

    x: Tensor
    """The iterate, not evaluated yet."""
    x_best: Tensor
    gradient_best: Tensor
    target: Tensor
    """int64, the class to reach; the label if the loss is untargeted."""
    best: Tensor
    """float64, the largest loss at the present radius."""
    size: Tensor
    """The length of a step, as a share of the radius."""
    changed: Tensor
    """int64, number of entries in which the best point of the last checkpoint differed from the clean image."""
    entries: Tensor
    """int64, number of entries that a step changes."""


@dataclass(frozen=True, kw_only=True)
class APGDL1(Rule[State]):
    """Projected gradient ascent in the L1 ball and the box. The sparseness of its steps follows that of the best point.

    A step of L1 length `size · radius` goes along the signs of the gradient's largest entries, two thirds as many as the entries
    in which the best point differs from the clean image, and is followed by the exact projection. After every 4 % of the steps,
    if the best point has lost more than 5 % of its changed entries, the search goes on from it with a step of the whole radius;
    otherwise the step is divided by 1.5, down to a tenth of the radius. With `multi_eps` there are three ascents, of 30, 30 and
    40 % of the steps, in balls of radius 3, 2 and 1 eps, each from the projection of the best point of the previous ascent.

    `steps`, `restarts`, `loss`, `targets` and `eot` are those of APGD. Without `multi_eps` the radius is eps, and the first steps
    change a fifth of the entries.

    Algorithm 1 and section 3 of the paper and the authors' code (auto-attack, autopgd_base.py). Departures:
    - A slot stops at its first verified success inside eps, also during the ascents with a larger radius. The gradient at the
      last iterate, which nothing uses, is not computed.
    - Each target is attacked once before the first is attacked again.
    - With eot > 1 the loss is also the mean over the passes, not that of the last pass.
    - Changed entries are counted exactly: in the authors' code, rounding may change the last bit of an entry that the
      projection has set back.
    """

    leaves_ball: ClassVar[bool] = True

    steps: int = 100
    restarts: int = 1
    loss: str = "ce"
    targets: int = 9
    eot: int = 1
    multi_eps: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "restarts", "targets", "eot"):
            whole_number(name, getattr(self, name), 1)
        object.__setattr__(self, "loss", loss_name(self.loss))
        boolean("multi_eps", self.multi_eps)
        if self.multi_eps and self.steps < 3:
            raise ValueError(f"steps={self.steps!r} is too few for three radii: use 3 or more, or multi_eps=False")

    @property
    def budget(self) -> int:
        """`steps`; with `multi_eps` also an evaluation of the first point in each of the two smaller balls."""
        return self.steps + (2 if self.multi_eps else 0)

    @property
    def total_restarts(self) -> int:
        """`restarts`, for a targeted loss times `targets`."""
        return self.restarts * (self.targets if self.loss in TARGETED else 1)

    def for_classes(self, classes: int) -> APGDL1:
        """With at most as many targets as there are wrong classes."""
        return replace(self, targets=min(self.targets, classes - 1)) if self.loss in TARGETED else self

    def start(self, oracle: Oracle) -> State:
        """Normal noise, projected, and for a targeted loss the target, by one forward pass of the clean image."""
        clean, labels = oracle.clean, oracle.labels
        radius = torch.full(labels.shape, oracle.threat.eps, dtype=torch.float64, device=clean.device)
        first = 3 if self.multi_eps else 1
        x = project_l1(clean + oracle.draws.normal(clean.shape[1:], 0, clean.dtype), clean, first * radius)
        target = likely_target(oracle, self.targets) if self.loss in TARGETED else labels
        everything = torch.full_like(labels, math.prod(clean.shape[1:]))
        changed = _changed(x, clean) if self.multi_eps else everything
        entries = _next_entries(changed) if self.multi_eps else -(-everything // 5)
        size = torch.ones_like(radius)
        return State(
            x=x,
            x_best=x,
            gradient_best=torch.zeros_like(x),
            target=target,
            best=size - math.inf,
            size=size,
            changed=changed,
            entries=entries,
        )

    def step(self, state: State, oracle: Oracle) -> State:
        """Evaluate the iterate, adapt the step at a checkpoint, and move; at the end of an ascent, start the next."""
        clean, eps = oracle.clean, oracle.threat.eps
        radius, following, due = _table(self.steps, self.multi_eps, clean.device)[oracle.step].unbind(1)
        due, over = due > 0, following < radius
        value, gradient = mean_pass(oracle, state.x, self.loss, state.target, self.eot)
        higher = value > state.best
        best = torch.where(higher, value, state.best)
        x_best = torch.where(per_image(higher, clean), state.x, state.x_best)
        gradient_best = torch.where(per_image(higher, clean), gradient, state.gradient_best)

        now = _changed(x_best, clean)
        sparser = due & (20 * now < 19 * state.changed)
        reduced = (state.size / _REDUCTION).clamp_min(_SMALLEST)
        size = torch.where(due, torch.where(sparser, 1.0, reduced), state.size)
        entries = torch.where(due, _next_entries(now), state.entries)
        x = torch.where(per_image(sparser, clean), x_best, state.x)
        gradient = torch.where(per_image(sparser, clean), gradient_best, gradient)

        moved = x + per_image((size * radius * eps).to(x.dtype), x) * sparse_ascent(gradient, entries)
        moved = project_l1(torch.where(per_image(over, x), x_best, moved), clean, following * eps)
        anew = _changed(moved, clean)
        return State(
            x=moved,
            x_best=torch.where(per_image(over, x), moved, x_best),
            gradient_best=gradient_best,
            target=state.target,
            best=torch.where(over, -math.inf, best),
            size=torch.where(over, 1.0, size),
            changed=torch.where(over, anew, torch.where(due, now, state.changed)),
            entries=torch.where(over, _next_entries(anew), entries),
        )


@lru_cache
def timetable(steps: int, multi_eps: bool) -> tuple[tuple[int, int, int], ...]:
    """For each evaluation: its radius and that of the following move, in eps, and whether a checkpoint is due (0 or 1)."""
    longer = math.ceil(0.3 * steps)
    lengths = {3: longer, 2: longer, 1: steps - 2 * longer} if multi_eps else {1: steps}
    rows = []
    for radius, length in lengths.items():
        period = max(int(0.04 * length), 1)
        rows += [(radius, radius, int(done > 0 and done % period == 0)) for done in range(length)]
        rows.append((radius, radius - 1, 0))
    return tuple(rows[:-1])


@lru_cache
def _table(steps: int, multi_eps: bool, device: torch.device) -> Tensor:
    return to_device(np.array(timetable(steps, multi_eps), dtype=np.float64), device)


def _changed(x: Tensor, clean: Tensor) -> Tensor:
    return (x != clean).flatten(1).sum(1)


def _next_entries(changed: Tensor) -> Tensor:
    """Two thirds of them, rounded up, and at least one."""
    return (-(-2 * changed // 3)).clamp_min(1)
