"""DDN: Rony et al., "Decoupling direction and norm for efficient gradient-based L2 adversarial attacks", CVPR 2019."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from gauntlet.attacks.ops.losses import misclassified, named_loss
from gauntlet.attacks.ops.norms import distance, per_image, steepest
from gauntlet.attacks.ops.random import Draws
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.ops.validators import boolean, number, positive, whole_number
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule


class State(NamedTuple):
    """One search; leading dimension: the slot."""

    x: Tensor
    radius: Tensor
    """float64, the norm to which the perturbation is scaled, before it is clipped to the box."""


@dataclass(frozen=True, kw_only=True)
class DDN(Rule[State]):
    """δ ← δ + α · ∇loss/‖∇loss‖₂; r ← r · (1 − γ) where misclassified, else r · (1 + γ); x ← clip(clean + r · δ/‖δ‖₂).

    `steps`: iterations, a pass each; `step_size`: the first α, decaying to a hundredth of it along a cosine; `gamma`: γ;
    `radius`: the first r, in pixels; `loss`: `ce`, the paper's, whose gradient leads to the nearest class only where the logits
    are neither close together nor so large that it is 0, or `cw` (margin). `stop_inside`: stop at the first success inside
    eps instead of seeking the smallest perturbation.

    Departures from the paper (section 4, algorithm 1): pixels are not rounded to 256 levels, r is kept below the largest
    norm that the box has room for (so does the reference code), and the last iterate is evaluated as well. As in the
    reference code, a sample without gradient takes a random direction.
    """

    version: ClassVar[int] = 2
    leaves_ball: ClassVar[bool] = True

    steps: int = 100
    step_size: float = 1.0
    gamma: float = 0.05
    radius: float = 1.0
    loss: str = "ce"
    stop_inside: bool = False

    def __post_init__(self) -> None:
        whole_number("steps", self.steps, 1)
        positive("step_size", self.step_size)
        number("gamma", self.gamma, above=0, below=1)
        positive("radius", self.radius)
        named_loss(self.loss)
        boolean("stop_inside", self.stop_inside)

    @property
    def minimum_norm(self) -> bool:
        """Unless `stop_inside`."""
        return not self.stop_inside

    def start(self, oracle: Oracle) -> State:
        """At the clean image."""
        first = torch.full(oracle.labels.shape, self.radius, dtype=torch.float64, device=oracle.clean.device)
        return State(x=oracle.clean, radius=first)

    def step(self, state: State, oracle: Oracle) -> State:
        """The direction, then the norm."""
        clean = oracle.clean
        logits, _, gradient = oracle.gradient(state.x, named_loss(self.loss))
        direction = _or_random(steepest(gradient, "L2"), oracle.draws)
        cosine = (1 + torch.cos(math.pi * oracle.step.to(torch.float64) / self.steps)) / 2
        alpha = self.step_size * (0.01 + 0.99 * cosine)
        delta = state.x - clean + per_image(alpha.to(clean.dtype), clean) * direction
        wrong = misclassified(logits, oracle.labels)
        radius = state.radius * torch.where(wrong, 1 - self.gamma, 1 + self.gamma)
        radius = torch.minimum(radius, distance(torch.where(clean < 0.5, 1.0, 0.0), clean, "L2"))
        x = clean + per_image(radius.to(clean.dtype), clean) * steepest(delta, "L2")
        return State(x=x.clamp(0, 1), radius=radius)


def _or_random(direction: Tensor, draws: Draws) -> Tensor:
    """`direction`, random where it is 0; numbers are drawn for those samples alone, since drawing is not cheap."""
    rows = (~direction.flatten(1).any(1)).nonzero().squeeze(1)
    if not len(rows):
        return direction
    few = Draws(draws.keys[rows], draws.restart[rows], draws.step[rows])
    return direction.index_copy(0, rows, steepest(few.normal(direction.shape[1:], 0, direction.dtype), "L2"))


def build(threat: ThreatModel, **settings: int | float | str | bool) -> DDN:
    """DDN with those settings; eps plays a part with `stop_inside` only."""
    return DDN(**settings)  # type: ignore[arg-type]


ENTRY = AttackEntry(
    AttackCard(
        name="ddn",
        summary="smallest L2 perturbation by steps of the gradient's direction and of the norm",
        source="Rony et al. 2019, arXiv 1811.09600",
        norms=("L2",),
        minimum_norm=True,
    ),
    build,
)
