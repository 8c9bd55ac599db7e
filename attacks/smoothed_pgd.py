"""PGD on a smoothed loss, for networks whose gradients lead nowhere in much of the ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from gauntlet.attacks.ops.l1_ball import ascent_in_box
from gauntlet.attacks.ops.losses import named_loss
from gauntlet.attacks.ops.norms import per_image, project, random_point, steepest
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.ops.validators import number, positive, share, whole_number
from gauntlet.attacks.parts.levelled import levelled
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule

_START, _NOISE = 0, 2
"""Tags of the draws, each of which takes two."""
_SIZES = (0.03, 0.3)
"""Least and largest size of the noise on a pixel in L2 and L1: the radii in Linf that networks are commonly trained for."""


class State(NamedTuple):
    """The iterate and the accumulated gradient, both (N, C, H, W)."""

    x: Tensor
    momentum: Tensor


@dataclass(frozen=True, kw_only=True)
class SmoothedPGD(Rule[State]):
    """g ← decay · g + ∇ loss(x + noise) / ‖∇‖₁, x ← project(x + size · direction(g)), with new noise at each step.

    Wu, Zhu, Tai and E, "Understanding and enhancing the transferability of adversarial examples", 2018 (arXiv 1802.09707),
    vr-IGSM: the gradient of the loss's mean over random points around the iterate, which they use for transfer. It breaks
    networks that were trained for a provable bound: their units are off within the radius that they were trained for, so that
    the gradients of the loss itself lead nowhere, and the noise switches units on.

    `steps`; `restarts`: number of starts, the first from the clean image, others from random points; `step_size`: size of the
    first step as a share of eps, from which steps decrease to 0; `decay`: share of the accumulated gradient that is kept;
    `loss`: `cw` (margin) or `ce`. `width`: the noise on each pixel is uniform, in Linf up to this share of eps, after which the
    point is projected onto the ball; in L2 and L1, whose balls leave hardly any noise to a pixel, up to this times a size that
    is drawn for each step between 0.03 and 0.3, evenly by its logarithm, and the point may leave the ball. `exact_every`: each
    such step takes the gradient at the iterate itself, and so evaluates it. `share`: the share of the entries that a step
    in L1 changes, by default that of cleverhans' `sparse_l1_descent`.

    Departures from the paper: the noise is uniform, not normal, and the mean is taken over steps, by momentum (Dong et al.,
    CVPR 2018, arXiv 1710.06081), not over several points in each. It stops at a sample's first verified success.
    """

    smooths: ClassVar[bool] = True
    leaves_ball: ClassVar[bool] = True

    steps: int = 80
    restarts: int = 1
    step_size: float = 2.0
    decay: float = 0.9
    loss: str = "cw"
    width: float = 1.0
    exact_every: int = 8
    share: float = 0.01

    def __post_init__(self) -> None:
        whole_number("steps", self.steps, 1)
        whole_number("restarts", self.restarts, 1)
        positive("step_size", self.step_size)
        number("decay", self.decay, least=0)
        named_loss(self.loss)
        positive("width", self.width)
        whole_number("exact_every", self.exact_every, 1)
        share("share", self.share)

    def start(self, oracle: Oracle) -> State:
        """At the clean image; later restarts begin at random points."""
        x = oracle.clean
        if self.restarts > 1:
            other = random_point(oracle.clean, oracle.threat, oracle.draws, _START)
            x = torch.where(per_image(oracle.restart > 0, x), other, x)
        return State(x=x, momentum=torch.zeros_like(x))

    def step(self, state: State, oracle: Oracle) -> State:
        """One step along the accumulated gradient."""
        exact = (oracle.step + 1) % self.exact_every == 0
        point = torch.where(per_image(exact, state.x), state.x, self._near(state.x, oracle))
        gradient = oracle.gradient(point, named_loss(self.loss)).gradient
        momentum = self.decay * state.momentum + levelled(gradient)
        size = self.step_size * oracle.threat.eps * (1 - oracle.step / self.steps)
        step = per_image(size.to(state.x.dtype), state.x) * self._direction(momentum, state.x, oracle)
        return State(x=project(state.x + step, oracle.clean, oracle.threat), momentum=momentum)

    def _near(self, x: Tensor, oracle: Oracle) -> Tensor:
        """A random point near each iterate, (N, C, H, W)."""
        noise = 2 * oracle.draws.uniform(x.shape[1:], _NOISE, x.dtype) - 1
        if oracle.threat.norm == "Linf":
            return project(x + self.width * oracle.threat.eps * noise, oracle.clean, oracle.threat)
        least, most = _SIZES
        size = least * (most / least) ** oracle.draws.uniform((), _NOISE + 1, x.dtype)
        return (x + per_image(self.width * size, x) * noise).clamp(0, 1)

    def _direction(self, momentum: Tensor, x: Tensor, oracle: Oracle) -> Tensor:
        """The steepest ascent; in L1 along the largest entries that may still move."""
        if oracle.threat.norm != "L1":
            return steepest(momentum, oracle.threat.norm)
        return ascent_in_box(momentum, x, self.share)


def build(threat: ThreatModel, **settings: int | float | str) -> SmoothedPGD:
    """PGD on a smoothed loss, with those settings."""
    return SmoothedPGD(**settings)  # type: ignore[arg-type]


ENTRY = AttackEntry(
    AttackCard(
        name="smoothed-pgd",
        summary="projected gradient ascent on the loss's mean over random points near the iterate",
        source="Wu et al. 2018, arXiv 1802.09707",
        norms=("Linf", "L2", "L1"),
    ),
    build,
)
