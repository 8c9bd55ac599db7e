"""FMN: Pintor et al., "Fast minimum-norm adversarial attacks through adaptive norm constraints", NeurIPS 2021."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from gauntlet.attacks.ops.box_projection import dual_size, shrink_to_ball
from gauntlet.attacks.ops.losses import cw, misclassified
from gauntlet.attacks.ops.norms import distance, per_image, steepest
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.ops.validators import boolean, number, positive, whole_number
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule


class State(NamedTuple):
    """One search; leading dimension: the slot."""

    x: Tensor
    radius: Tensor
    """float64, radius of the ball that holds the iterate; 0 at the start."""
    best: Tensor
    """float64, the smallest norm of a misclassified iterate; infinite before the first."""


@dataclass(frozen=True, kw_only=True)
class FMN(Rule[State]):
    """x ← clip(project(x + α · ∇margin/‖∇margin‖₂, ball of radius r)), where r follows the boundary; both for each sample.

    Before the first misclassified iterate, r is where the linearised model has its boundary: ‖x − clean‖ + |margin| / dual
    norm of the gradient. After it, r shrinks by the factor 1 − γ at a misclassified iterate (and to the best norm so far, at
    most) and grows by 1 + γ at the others. `steps`: iterations, a pass each; `step_size`: the first α, in pixels (L2 norm of
    a step), decaying to a hundredth of it along a cosine; `gamma`: the first γ, decaying to 0.001 likewise. `stop_inside`:
    stop at the first success inside eps instead of seeking the smallest perturbation.

    Departures from the paper (section 2, algorithm 1) and the authors' code:
    - Before the first misclassified iterate, r also grows by 1 + γ at every iterate, and never shrinks. By the paper's rule the
      iterates near a flat boundary from the inside without ever crossing it, where the box takes a part of each step.
    - It starts from the clean image: a start from a point of another class is not offered.
    - The last iterate is evaluated as well.
    """

    version: ClassVar[int] = 2
    leaves_ball: ClassVar[bool] = True

    steps: int = 100
    step_size: float = 1.0
    gamma: float = 0.05
    stop_inside: bool = False

    def __post_init__(self) -> None:
        whole_number("steps", self.steps, 1)
        positive("step_size", self.step_size)
        number("gamma", self.gamma, above=0, below=1)
        boolean("stop_inside", self.stop_inside)

    @property
    def minimum_norm(self) -> bool:
        """Unless `stop_inside`."""
        return not self.stop_inside

    def start(self, oracle: Oracle) -> State:
        """At the clean image."""
        zero = torch.zeros(len(oracle.labels), dtype=torch.float64, device=oracle.clean.device)
        return State(x=oracle.clean, radius=zero, best=zero + math.inf)

    def step(self, state: State, oracle: Oracle) -> State:
        """The radius first, then the iterate."""
        clean, norm = oracle.clean, oracle.threat.norm
        logits, value, gradient = oracle.gradient(state.x, cw)
        size = distance(state.x, clean, norm)
        wrong = misclassified(logits, oracle.labels)
        best = torch.where(wrong, torch.minimum(state.best, size), state.best)
        slope = dual_size(gradient, norm).clamp_min(torch.finfo(torch.float64).tiny)
        ahead = size + value.abs().to(torch.float64) / slope
        cosine = (1 + torch.cos(math.pi * oracle.step.to(torch.float64) / self.steps)) / 2
        gamma = 0.001 + (self.gamma - 0.001) * cosine
        outside = torch.where(best.isinf(), torch.maximum(ahead, state.radius), state.radius) * (1 + gamma)
        radius = torch.where(wrong, torch.minimum(state.radius * (1 - gamma), best), outside)
        radius = torch.minimum(radius, distance(torch.where(clean < 0.5, 1.0, 0.0), clean, norm))
        alpha = self.step_size * (0.01 + 0.99 * cosine)
        moved = state.x - clean + per_image(alpha.to(clean.dtype), clean) * steepest(gradient, "L2")
        x = (clean + shrink_to_ball(moved, radius, norm)).clamp(0, 1)
        return State(x=x, radius=radius, best=best)


def build(threat: ThreatModel, **settings: int | float | bool) -> FMN:
    """FMN with those settings; eps plays a part with `stop_inside` only."""
    return FMN(**settings)  # type: ignore[arg-type]


ENTRY = AttackEntry(
    AttackCard(
        name="fmn",
        summary="smallest perturbation by projected ascent of the margin in a ball that follows the boundary",
        source="Pintor et al. 2021, arXiv 2102.12827",
        norms=("Linf", "L2", "L1"),
        minimum_norm=True,
    ),
    build,
)
