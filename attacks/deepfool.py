"""DeepFool: Moosavi-Dezfooli et al., "DeepFool: a simple and accurate method to fool deep neural networks", CVPR 2016."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from gauntlet.attacks.ops.norms import per_image, steepest
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.ops.validators import number, whole_number
from gauntlet.attacks.parts.nearest_class import begin, look, nearest_of
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule

_EXTRA = 1e-4
"""Added to the length of each step, as the authors' code does: else the box may keep the iterates before the boundary forever."""


class State(NamedTuple):
    """The iterate, whether a misclassified point was noticed, and the fields of `Nearest`; leading dimension: the slot."""

    x: Tensor
    done: Tensor
    order: Tensor
    place: Tensor
    away: Tensor
    gap: Tensor
    normal: Tensor


@dataclass(frozen=True, kw_only=True)
class DeepFool(Rule[State]):
    """Steps slightly beyond the nearest boundary of the linearised model until the class changes.

    `steps`: number of iterations, with one pass for each of the `classes` most likely wrong classes of the clean image;
    `overshoot`: how much further each step goes. It ends at the first misclassified point and does not refine it, so that FAB,
    FMN and DDN find smaller distances.

    Departures from the paper (section 3, algorithm 2; 3.3 for Linf) and the authors' code: each iterate is clipped to the box,
    and the overshoot is part of every step (the authors apply it to the sum; both are the same but for the points at which
    the model is linearised).
    """

    version: ClassVar[int] = 2
    leaves_ball: ClassVar[bool] = True

    steps: int = 50
    classes: int = 9
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        whole_number("steps", self.steps, 1)
        whole_number("classes", self.classes, 1)
        number("overshoot", self.overshoot, least=0)

    @property
    def minimum_norm(self) -> bool:
        """Always."""
        return True

    @property
    def budget(self) -> int:
        """A pass for each class in each iteration."""
        return self.steps * self.classes

    def for_classes(self, classes: int) -> DeepFool:
        """With at most as many classes as there are wrong classes."""
        return replace(self, classes=min(self.classes, classes - 1))

    def start(self, oracle: Oracle) -> State:
        """At the clean image."""
        nearest = begin(oracle.clean, self.classes)
        return State(x=oracle.clean, done=torch.zeros_like(nearest.place, dtype=torch.bool), **nearest._asdict())

    def step(self, state: State, oracle: Oracle) -> State:
        """One pass; after the pass for the last class, the move."""
        _, nearest = look(nearest_of(state), state.x, oracle)
        done = oracle.slots.found
        moving = (nearest.place >= self.classes) & ~done & nearest.away.isfinite()
        length = torch.where(moving, (1 + self.overshoot) * (nearest.away + _EXTRA), 0.0).to(state.x.dtype)
        x = (state.x + per_image(length, state.x) * steepest(nearest.normal, oracle.threat.norm)).clamp(0, 1)
        return State(x=torch.where(per_image(moving, x), x, state.x), done=done, **nearest._asdict())

    def finished(self, state: State) -> Tensor:
        """Slots with a misclassified point."""
        return state.done


def build(threat: ThreatModel, **settings: int | float) -> DeepFool:
    """DeepFool with those settings; eps plays no part."""
    return DeepFool(**settings)  # type: ignore[arg-type]


ENTRY = AttackEntry(
    AttackCard(
        name="deepfool",
        summary="steps to the nearest boundary of the linearised model until the class changes",
        source="Moosavi-Dezfooli et al. 2016, arXiv 1511.04599",
        norms=("Linf", "L2"),
        minimum_norm=True,
    ),
    build,
)
