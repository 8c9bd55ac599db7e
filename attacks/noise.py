"""Random points of the ball: a baseline that every attack should beat, and a check of attacks that do not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from gauntlet.attacks.ops.norms import random_point
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.ops.validators import boolean, whole_number
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule


class State(NamedTuple):
    """Empty: the draws are independent."""


@dataclass(frozen=True, kw_only=True)
class Noise(Rule[State]):
    """At most `draws` random points, clipped to the box, with one forward pass each; it stops at a misclassified point.

    Points are uniform in the ball; with `corners` (Linf only) every pixel moves by eps, up or down. Random search as a baseline
    and sanity check: Carlini et al., "On evaluating adversarial robustness", arXiv 1902.06705, section 4.
    """

    draws: int = 100
    corners: bool = False

    def __post_init__(self) -> None:
        whole_number("draws", self.draws, 1)
        boolean("corners", self.corners)

    @property
    def budget(self) -> int:
        """`draws`."""
        return self.draws

    def start(self, oracle: Oracle) -> State:
        """Nothing to prepare."""
        return State()

    def step(self, state: State, oracle: Oracle) -> State:
        """One random point."""
        clean, eps = oracle.clean, oracle.threat.eps
        if self.corners:
            # One random bit for each pixel: a word serves 32 pixels.
            pixels = math.prod(clean.shape[1:])
            bit = torch.arange(pixels, device=clean.device)
            up = oracle.draws.bits(-(-pixels // 32), 0)[:, bit // 32] >> bit % 32 & 1
            point = torch.where(up.view(clean.shape) > 0, clean + eps, clean - eps).clamp(0, 1)
        else:
            point = random_point(clean, oracle.threat, oracle.draws)
        oracle.logits(point)
        return state

    def last(self, state: State) -> None:
        """Every point is evaluated in its step."""
        return


def build(threat: ThreatModel, **settings: int | bool) -> Noise:
    """Noise with those settings. Raises ValueError for `corners` in another norm than Linf."""
    rule = Noise(**settings)  # type: ignore[arg-type]
    if rule.corners and threat.norm != "Linf":
        raise ValueError(f"corners=True is for Linf, whose ball has corners, not for {threat.norm}: omit it")
    return rule


ENTRY = AttackEntry(
    AttackCard(
        name="noise",
        summary="random points of the ball",
        source="Carlini et al. 2019, arXiv 1902.06705",
        norms=("Linf", "L2", "L1"),
        kind="black-box",
    ),
    build,
)
