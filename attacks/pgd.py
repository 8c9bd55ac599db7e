"""Projected gradient descent: Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from gauntlet.attacks.ops.losses import named_loss
from gauntlet.attacks.ops.norms import project, random_point, steepest
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.ops.validators import boolean, positive, whole_number
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.slide import SLIDE
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule


class State(NamedTuple):
    """The iterate, (N, C, H, W)."""

    x: Tensor


@dataclass(frozen=True, kw_only=True)
class PGD(Rule[State]):
    """x ← project(x + step_size · eps · direction(∇ loss(x))), from a uniformly random point of the ball.

    `steps`: number of gradient steps; `restarts`: number of starts, including the first; `step_size`: as a share of eps, by
    default 2.5 / steps (from the authors' MNIST challenge code); `loss`: `ce` or `cw` (margin); `random_start`: whether to start
    at a random point or at the clean image. The direction is the sign for Linf and the normalised gradient for L2.

    Departures from the paper (section 2.1): it stops at a sample's first verified success, and evaluates every iterate,
    including the last, so that no success on its way is lost.
    """

    steps: int = 40
    restarts: int = 1
    step_size: float | None = None
    loss: str = "ce"
    random_start: bool = True

    def __post_init__(self) -> None:
        whole_number("steps", self.steps, 1)
        whole_number("restarts", self.restarts, 1)
        if self.step_size is not None:
            positive("step_size", self.step_size)
        named_loss(self.loss)
        boolean("random_start", self.random_start)
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts > 1 needs random_start=True: from the clean image every restart is the same")

    def start(self, oracle: Oracle) -> State:
        """A random point of the ball, or the clean image."""
        x = random_point(oracle.clean, oracle.threat, oracle.draws) if self.random_start else oracle.clean
        return State(x=x)

    def step(self, state: State, oracle: Oracle) -> State:
        """One projected step of steepest ascent."""
        threat = oracle.threat
        size = threat.eps * (2.5 / self.steps if self.step_size is None else self.step_size)
        gradient = oracle.gradient(state.x, named_loss(self.loss)).gradient
        return State(x=project(state.x + size * steepest(gradient, threat.norm), oracle.clean, threat))


def build(threat: ThreatModel, **settings: int | float | str | bool | None) -> PGD | SLIDE:
    """PGD with those settings; in L1, where steepest ascent changes a single pixel, its sparse variant SLIDE."""
    rule = SLIDE if threat.norm == "L1" else PGD
    return rule(**settings)  # type: ignore[arg-type]


ENTRY = AttackEntry(
    AttackCard(
        name="pgd",
        summary="projected gradient ascent from random starts",
        source="Madry et al. 2018, arXiv 1706.06083; L1: Tramèr and Boneh 2019, arXiv 1904.13000",
        norms=("Linf", "L2", "L1"),
    ),
    build,
)
