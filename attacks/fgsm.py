"""Fast gradient sign method: Goodfellow, Shlens, Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from gauntlet.attacks.ops.losses import ce
from gauntlet.attacks.ops.norms import project, steepest
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule


class State(NamedTuple):
    """The point, (N, C, H, W)."""

    x: Tensor


@dataclass(frozen=True)
class FGSM(Rule[State]):
    """x + eps · sign(∇ CE(x)), clipped to the box; for L2, x + eps · ∇/‖∇‖₂ (the "fast gradient method").

    Departures from the paper (section 4): the clipping to [0, 1], and the L2 variant.
    """

    @property
    def budget(self) -> int:
        """One step."""
        return 1

    def start(self, oracle: Oracle) -> State:
        """At the clean image."""
        return State(x=oracle.clean)

    def step(self, state: State, oracle: Oracle) -> State:
        """The whole radius along the direction of steepest ascent."""
        gradient = oracle.gradient(state.x, ce).gradient
        moved = state.x + oracle.threat.eps * steepest(gradient, oracle.threat.norm)
        return State(x=project(moved, oracle.clean, oracle.threat))


def build(threat: ThreatModel) -> FGSM:
    """FGSM has no settings."""
    return FGSM()


ENTRY = AttackEntry(
    AttackCard(
        name="fgsm",
        summary="one step of the whole radius along the sign of the gradient",
        source="Goodfellow et al. 2015, arXiv 1412.6572",
        norms=("Linf", "L2"),
    ),
    build,
)
