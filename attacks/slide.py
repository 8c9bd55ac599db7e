"""SLIDE: Tramèr and Boneh, "Adversarial training and robustness for multiple perturbations", NeurIPS 2019. `pgd` in L1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from gauntlet.attacks.ops.l1_ball import ascent_in_box
from gauntlet.attacks.ops.losses import named_loss
from gauntlet.attacks.ops.norms import project, random_point
from gauntlet.attacks.ops.validators import boolean, positive, share, whole_number
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule


class State(NamedTuple):
    """The iterate, (N, C, H, W)."""

    x: Tensor


@dataclass(frozen=True, kw_only=True)
class SLIDE(Rule[State]):
    """x ← project(x + step_size · eps · direction(∇ loss(x))), from a uniformly random point of the L1 ball.

    The direction has L1 length 1, along the signs of the gradient's largest entries: the share `share` of all, in (0, 1]. The
    best share depends on eps: the paper tunes it, cleverhans uses 0.01. `apgd` adapts it and is the stronger attack. `steps`,
    `restarts`, `step_size` (a share of eps), `loss` and `random_start` are those of PGD.

    Section 3 of the paper (arXiv 1904.13000) and cleverhans' `sparse_l1_descent`. Departures:
    - Entries at the edge of the box that would leave it are skipped, which is an option in cleverhans, off by default.
    - The projection is the exact one onto the ball and the box; they project onto the ball, then clip.
    - It stops at a sample's first verified success, and evaluates every iterate, the last one included.
    """

    steps: int = 40
    restarts: int = 1
    step_size: float | None = None
    share: float = 0.02
    loss: str = "ce"
    random_start: bool = True

    def __post_init__(self) -> None:
        whole_number("steps", self.steps, 1)
        whole_number("restarts", self.restarts, 1)
        if self.step_size is not None:
            positive("step_size", self.step_size)
        share("share", self.share)
        named_loss(self.loss)
        boolean("random_start", self.random_start)
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts > 1 needs random_start=True: from the clean image every restart is the same")

    def start(self, oracle: Oracle) -> State:
        """A random point of the ball, or the clean image."""
        x = random_point(oracle.clean, oracle.threat, oracle.draws) if self.random_start else oracle.clean
        return State(x=x)

    def step(self, state: State, oracle: Oracle) -> State:
        """One projected, sparse step."""
        x, threat = state.x, oracle.threat
        size = threat.eps * (2.5 / self.steps if self.step_size is None else self.step_size)
        gradient = oracle.gradient(x, named_loss(self.loss)).gradient
        direction = ascent_in_box(gradient, x, self.share)
        return State(x=project(x + size * direction, oracle.clean, threat))
