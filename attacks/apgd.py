"""Auto-PGD: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", ICML 2020."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from gauntlet.attacks.apgd_l1 import APGDL1
from gauntlet.attacks.ops.dlr import MARGINS, TARGETED
from gauntlet.attacks.ops.norms import per_image, project, steepest
from gauntlet.attacks.ops.random import Draws
from gauntlet.attacks.ops.threat import Norm, ThreatModel
from gauntlet.attacks.ops.validators import share, whole_number
from gauntlet.attacks.parts.apgd_common import checkpoint_period, checkpoints, likely_target, loss_name, mean_pass
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule

_MOMENTUM = 0.75
"""Weight of the new step; the rest is the previous move."""


class State(NamedTuple):
    """One ascent; leading dimension: the slot. Images are (N, C, H, W), all other fields (N,)."""

    x: Tensor
    """The iterate, not evaluated yet."""
    before: Tensor
    """The iterate from which the last move started."""
    x_best: Tensor
    gradient_best: Tensor
    target: Tensor
    """int64, the class to reach; the label if the loss is untargeted."""
    size: Tensor
    """The present step size, in units of the pixel range."""
    best: Tensor
    """float64, the largest loss."""
    previous: Tensor
    """float64, the loss of the previous iterate."""
    rises: Tensor
    """int64, number of steps since the last checkpoint that raised the loss."""
    best_then: Tensor
    """float64, `best` at the last checkpoint."""
    halved: Tensor
    """bool, whether the step was halved at the last checkpoint."""


@dataclass(frozen=True, kw_only=True)
class APGD(Rule[State]):
    """Projected gradient ascent with momentum. The step size starts at 2 eps and is halved when the loss stops rising.

    `steps`: number of gradient steps for each start; `restarts`: number of random starts, including the first; `loss`: `ce`,
    `dlr`, `cw` (margin), `log_odds`, or `ce_targeted`, `cw_targeted`, `dlr_targeted` (hyphens are read as underscores);
    `targets`: for targeted losses, the number of most likely wrong classes of the clean image to attack, each `restarts` times;
    `eot`: number of passes over which the gradient is averaged, for randomised models; `rho`: the share of steps that must
    raise the loss, or the step size is halved. With few classes some losses are replaced, see their docstrings.

    In float32 the gradient of `ce` is 0 where a model is so confident that the label's probability rounds to 1. That is the
    published attack, and its failure there is no evidence of robustness. `dlr` and `log_odds` do not saturate; without
    rounding and with eot=1, `log_odds` makes the steps of `ce`.

    Section 3 (algorithm 1) and section 4 of the paper and the authors' code (auto-attack, autopgd_base.py). As in the code,
    and unlike the paper's condition 1, the first checkpoint compares the loss after the first step with 0 (for `log_odds`:
    with the value that corresponds to it). Departures:
    - A slot stops at its first verified success. The gradient at the last iterate, which nothing uses, is not computed.
    - Each target is attacked once before the first is attacked again.
    - With eot > 1 the loss is also the mean over the passes, not that of the last pass.
    - L2 directions are normalised in float64, without 1e-12 in the denominator: tiny gradients move as far as others.
    """

    steps: int = 100
    restarts: int = 1
    loss: str = "ce"
    targets: int = 9
    eot: int = 1
    rho: float = 0.75

    def __post_init__(self) -> None:
        for name in ("steps", "restarts", "targets", "eot"):
            whole_number(name, getattr(self, name), 1)
        share("rho", self.rho)
        object.__setattr__(self, "loss", loss_name(self.loss))

    @property
    def total_restarts(self) -> int:
        """`restarts`, for a targeted loss times `targets`."""
        return self.restarts * (self.targets if self.loss in TARGETED else 1)

    def for_classes(self, classes: int) -> APGD:
        """With at most as many targets as there are wrong classes."""
        return replace(self, targets=min(self.targets, classes - 1)) if self.loss in TARGETED else self

    def start(self, oracle: Oracle) -> State:
        """A random point, and for a targeted loss the target, by one forward pass of the clean image."""
        clean, labels = oracle.clean, oracle.labels
        x = random_surface_point(clean, oracle.threat, oracle.draws)
        target = likely_target(oracle, self.targets) if self.loss in TARGETED else labels
        none = torch.zeros(labels.shape, dtype=torch.float64, device=clean.device)
        lowest, count = none - math.inf, torch.zeros_like(labels)
        size = torch.full(labels.shape, 2 * oracle.threat.eps, dtype=clean.dtype, device=clean.device)
        return State(
            x=x,
            before=x,
            x_best=x,
            gradient_best=torch.zeros_like(x),
            target=target,
            size=size,
            best=lowest,
            previous=none,
            rises=count,
            best_then=lowest,
            halved=~count.bool(),
        )

    def step(self, state: State, oracle: Oracle) -> State:
        """Evaluate the iterate, halve the step size at a checkpoint if the loss stopped rising, and move."""
        clean, threat, done = oracle.clean, oracle.threat, oracle.step
        value, gradient = mean_pass(oracle, state.x, self.loss, state.target, self.eot)
        higher = value > state.best
        best = torch.where(higher, value, state.best)
        x_best = torch.where(per_image(higher, clean), state.x, state.x_best)
        gradient_best = torch.where(per_image(higher, clean), gradient, state.gradient_best)
        rises = state.rises + ((value > state.previous) & (done > 0))

        period = checkpoint_period(done, self.steps)
        due = period > 0
        halve = due & ((rises <= self.rho * period) | (~state.halved & (state.best_then >= best)))
        x, size = state.x, state.size
        if any(checkpoints(self.steps)[made] for made in set(oracle.made.tolist())):
            size = torch.where(halve, size / 2, size)
            x = torch.where(per_image(halve, clean), x_best, x)
            gradient = torch.where(per_image(halve, clean), gradient_best, gradient)

        share = per_image(torch.where(done > 0, _MOMENTUM, 1.0).to(x.dtype), x)
        moved = project(x + per_image(size, x) * steepest(gradient, threat.norm), clean, threat)
        moved = project(x + share * (moved - x) + (1 - share) * (x - state.before), clean, threat)
        return State(
            x=moved,
            before=x,
            x_best=x_best,
            gradient_best=gradient_best,
            target=state.target,
            size=size,
            best=best,
            previous=torch.where(done > 0, value, -math.inf if self.loss == "log_odds" else 0.0),
            rises=torch.where(due, 0, rises),
            best_then=torch.where(due, best, state.best_then),
            halved=torch.where(due, halve, state.halved),
        )

    def gap(self, state: State) -> Tensor | None:
        """How far the restart's best loss is below 0, (N,), for losses above 0 where the model is misled; None for others.

        0 where the gradient at the best point vanished: the pace says nothing there, so that the restart has its whole budget.
        """
        if self.loss not in MARGINS:
            return None
        return torch.where(state.gradient_best.flatten(1).any(1), -state.best, 0.0)


def random_surface_point(clean: Tensor, threat: ThreatModel, draws: Draws, tag: int = 0) -> Tensor:
    """A point at distance eps, drawn as in the authors' code, then clipped to the box.

    Linf: a uniform point of the cube, stretched until its largest coordinate is at eps. L2: uniform on the sphere.
    """
    if threat.norm == "Linf":
        delta = 2 * draws.uniform(clean.shape[1:], tag, clean.dtype) - 1
        delta = delta / per_image(delta.abs().flatten(1).amax(1).clamp_min(1e-12), delta)
    else:
        delta = steepest(draws.normal(clean.shape[1:], tag, clean.dtype), threat.norm)
    return project(clean + threat.eps * delta, clean, threat)


def build(threat: ThreatModel, **settings: int | float | str) -> APGD | APGDL1:
    """APGD with those settings; in L1, its variant for that norm."""
    rule = APGDL1 if threat.norm == "L1" else APGD
    return rule(**settings)  # type: ignore[arg-type]


def build_targeted(threat: ThreatModel, **settings: int | float | str) -> APGD | APGDL1:
    """APGD with those settings and the targeted DLR loss, unless they name another."""
    return build(threat, **{"loss": "dlr_targeted", **settings})


_NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
_SOURCE = "Croce and Hein 2020, arXiv 2003.01690; L1: 2021, arXiv 2103.01208"
ENTRY = AttackEntry(
    AttackCard(
        name="apgd",
        summary="Auto-PGD: gradient ascent with momentum (L1: with sparse steps) and a step that adapts itself",
        source=_SOURCE,
        norms=_NORMS,
    ),
    build,
)

ENTRY_TARGETED = AttackEntry(
    AttackCard(
        name="apgd-t",
        summary="Auto-PGD on the targeted DLR loss, towards each of the most likely wrong classes",
        source=_SOURCE,
        norms=_NORMS,
    ),
    build_targeted,
)
