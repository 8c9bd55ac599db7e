"""MALT: Melamed, Yehudai and Shamir, "MALT powers up adversarial attacks", NeurIPS 2024, arXiv 2407.02240."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from gauntlet.attacks.apgd import build_targeted
from gauntlet.attacks.ops.box_projection import dual_size
from gauntlet.attacks.ops.dlr import cw_targeted
from gauntlet.attacks.ops.threat import Norm, ThreatModel
from gauntlet.attacks.ops.validators import whole_number
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.solving.cascade import Cascade
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.slots import RANKED
from gauntlet.attacks.solving.stage import Stage


class State(NamedTuple):
    """The classes ranked so far; leading dimension: the slot."""

    candidates: Tensor
    """int64 (N, candidates), the likeliest wrong classes of the clean image, likeliest first."""
    distance: Tensor
    """float64 (N, RANKED), distances of the nearest boundaries so far, ascending; infinite where there are fewer."""
    order: Tensor
    """int64 (N, RANKED), their classes; -1 where there are fewer."""


@dataclass(frozen=True, kw_only=True)
class TargetOrder(Rule[State]):
    """Rank the `candidates` likeliest wrong classes by the distance of their boundaries, linearised at the clean image.

    The distance to class c is (z_y − z_c) / ‖∇(z_y − z_c)‖, by the dual norm of the threat model: section 3 of the paper, and
    `get_class_rank` of the official code. A pass for each candidate, at the clean image; nothing is attacked. Later stages of a
    cascade with `rival_first` attack the RANKED nearest classes first. Passes and memory depend on `candidates`, not on the
    number of classes. With ten classes or fewer nine targets are all of them, and cascades leave the stage out.

    Departure: a class whose gradient is that of the label is the farthest, where it is the nearest in the authors' code.
    """

    ranks_targets: ClassVar[bool] = True
    least_classes: ClassVar[int] = RANKED + 2

    candidates: int = 100

    def __post_init__(self) -> None:
        whole_number("candidates", self.candidates, 1)

    @property
    def budget(self) -> int:
        """A pass for each candidate."""
        return self.candidates

    def for_classes(self, classes: int) -> TargetOrder:
        """With at most as many candidates as there are wrong classes."""
        return replace(self, candidates=min(self.candidates, classes - 1))

    def start(self, oracle: Oracle) -> State:
        """Nothing ranked yet."""
        wrong = oracle.clean_logits().scatter(1, oracle.labels[:, None], -torch.inf)
        candidates = wrong.topk(min(self.candidates, wrong.shape[1] - 1), dim=1).indices
        distance = torch.full((len(wrong), RANKED), torch.inf, dtype=torch.float64, device=wrong.device)
        return State(candidates, distance, torch.full(distance.shape, -1, dtype=torch.int64, device=wrong.device))

    def step(self, state: State, oracle: Oracle) -> State:
        """Rank the next candidate."""
        place = oracle.step.clamp_max(state.candidates.shape[1] - 1)[:, None]
        target = state.candidates.gather(1, place)
        _, gap, gradient = oracle.gradient(
            oracle.clean, lambda logits, labels: cw_targeted(logits, labels, target.squeeze(1))
        )
        slope = dual_size(gradient, oracle.threat.norm)
        own = torch.where(slope > 0, -gap.to(torch.float64) / torch.where(slope > 0, slope, 1.0), torch.inf)
        # Stable, so that of equal distances the likelier class comes first.
        distance, index = torch.cat([state.distance, own[:, None]], 1).sort(dim=1, stable=True)
        order = torch.cat([state.order, target], 1).gather(1, index)[:, :RANKED]
        oracle.slots = oracle.slots.ranked(order)
        return State(state.candidates, distance[:, :RANKED], order)


def build(threat: ThreatModel, *, steps: int = 100, targets: int = 9, candidates: int = 100) -> Cascade:
    """MALT: APGD-T towards the nearest `targets` of `candidates` likeliest wrong classes, from one start each."""
    attack = build_targeted(threat, steps=steps, targets=targets)
    return Cascade((Stage("order", TargetOrder(candidates=candidates)), Stage("malt", attack, rival_first=True)))


_NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
ENTRY = AttackEntry(
    AttackCard(
        name="malt",
        summary="APGD-T towards the classes with the nearest boundaries of the linearised model, for many classes",
        source="Melamed et al. 2024, arXiv 2407.02240",
        norms=_NORMS,
    ),
    build,
)
