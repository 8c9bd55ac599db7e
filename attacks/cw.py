"""Carlini & Wagner's L2 attack: "Towards evaluating the robustness of neural networks", IEEE S&P 2017."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from gauntlet.attacks.ops.box_projection import inner
from gauntlet.attacks.ops.losses import Loss, cw, misclassified
from gauntlet.attacks.ops.norms import per_image
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.ops.validators import number, positive, whole_number
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule

_BETA1, _BETA2 = 0.9, 0.999


class State(NamedTuple):
    """One search over the constant c; leading dimension: the slot."""

    x: Tensor
    first: Tensor
    """Adam's first moment, like x."""
    second: Tensor
    """Adam's second moment, like x."""
    iteration: Tensor
    """int64, within the present search step."""
    search: Tensor
    """int64, completed search steps."""
    c: Tensor
    low: Tensor
    high: Tensor
    """float64; infinite until some c has succeeded."""
    success: Tensor
    """bool, whether the present c has succeeded."""
    unit: Tensor
    """float64, the constant that reaches the boundary of the linearised model; 1 before it is known, and without a gradient."""


@dataclass(frozen=True, kw_only=True)
class CW(Rule[State]):
    """Minimise ‖δ‖₂² + c · u · max(Z_y − max_{j≠y} Z_j + confidence, 0) by Adam, with a binary search over c for each sample.

    `search_steps`: number of values of c; `steps`: number of iterations for each; `lr`: Adam's step in units of the pixel range,
    which decays to `lr / 20` along a cosine within each search step; `c`: the first constant, multiplied by 10 until it succeeds,
    in units of u = 2m/‖∇m‖², the least that reaches the boundary of a linear model; m is the margin of the clean image.

    Departures from the paper (sections V and VI) and the authors' code:
    - The box is kept by projection in pixel space (the paper's "projected gradient descent" of section V.B) instead of the
      change of variables by tanh, whose gradient vanishes for pixels at exactly 0 or 1: those pixels hardly ever move.
    - The constant is in units that follow the model's logits, so that a factor on all of them, which changes no prediction, does
      not change the search either.
    - The margin is exact for negative logits and two classes: the label is masked with −∞, not with −10 000 or 0.
    - Every slot stops and searches by itself. There is no early stop on the loss.
    - The step decays, and Adam's second moment is shared by the pixels of an image, so that the steps keep the direction of the
      gradient: both let the iterates settle on the boundary, where the smallest perturbation lies.
    - The smallest misclassified point over all iterates is kept, whichever constant found it.
    """

    version: ClassVar[int] = 3

    search_steps: int = 9
    steps: int = 100
    lr: float = 0.02
    c: float = 2.0
    confidence: float = 0.0

    def __post_init__(self) -> None:
        whole_number("search_steps", self.search_steps, 1)
        whole_number("steps", self.steps, 1)
        number("confidence", self.confidence, least=0)
        positive("lr", self.lr)
        positive("c", self.c)

    @property
    def minimum_norm(self) -> bool:
        """Always."""
        return True

    @property
    def budget(self) -> int:
        """All iterations of all search steps."""
        return self.search_steps * self.steps

    def start(self, oracle: Oracle) -> State:
        """At the clean image, with the first constant."""
        x, n = oracle.clean, len(oracle.labels)
        count = torch.zeros(n, dtype=torch.int64, device=x.device)
        real = torch.zeros(n, dtype=torch.float64, device=x.device)
        zero = torch.zeros_like(x)
        return State(
            x=x,
            first=zero,
            second=real,
            iteration=count,
            search=count,
            c=real + self.c,
            low=real,
            high=real + math.inf,
            success=count.bool(),
            unit=real + 1,
        )

    def step(self, state: State, oracle: Oracle) -> State:
        """One iteration of Adam; at the end of a search step, the next constant."""
        logits, _, gradient = oracle.gradient(state.x, self._hinge())
        gap = cw(logits, oracle.labels)
        success = state.success | (misclassified(logits, oracle.labels) & (gap >= self.confidence))
        unit = state.unit
        # The first pass is made at the clean image.
        first = (state.search == 0) & (state.iteration == 0) & (gap < 0)
        if _may_hold(first):
            steepness = inner(gradient, gradient)
            unit = torch.where(first & (steepness > 0), -2 * gap.to(torch.float64) / steepness, unit)
        weight = per_image((state.c * unit).to(state.x.dtype), state.x)
        total = (state.x - oracle.clean).mul_(2).add_(weight * gradient)
        moment = (_BETA1 * state.first).add_((1 - _BETA1) * total)
        size = total.to(torch.float64).flatten(1).square_().mean(1)
        second = _BETA2 * state.second + (1 - _BETA2) * size
        step, correction = (one[state.iteration] for one in _schedule(self.steps, self.lr, state.iteration.device))
        scale = step / ((second / correction).sqrt() + 1e-12)
        x = (state.x - per_image(scale.to(state.x.dtype), state.x) * moment).clamp_(0, 1)
        iteration = state.iteration + 1
        moved = state._replace(x=x, first=moment, second=second, iteration=iteration, success=success, unit=unit)
        over = iteration >= self.steps
        return self._next_constant(moved, over, oracle.clean) if _may_hold(over) else moved

    def _hinge(self) -> Loss:
        return lambda logits, labels: (self.confidence - cw(logits, labels)).clamp_min(0)

    def _next_constant(self, state: State, over: Tensor, clean: Tensor) -> State:
        high = torch.where(over & state.success, torch.minimum(state.high, state.c), state.high)
        low = torch.where(over & ~state.success, torch.maximum(state.low, state.c), state.low)
        between = torch.where(high.isinf(), state.c * 10, (low + high) / 2)
        # The last search step's final iterate is kept, for the solver to evaluate.
        fresh = per_image(over & (state.search + 1 < self.search_steps), state.x)
        return State(
            x=torch.where(fresh, clean, state.x),
            first=torch.where(fresh, 0, state.first),
            second=torch.where(over, 0, state.second),
            iteration=torch.where(over, 0, state.iteration),
            search=state.search + over,
            c=torch.where(over, between, state.c),
            low=low,
            high=high,
            success=state.success & ~over,
            unit=state.unit,
        )


def _may_hold(mask: Tensor) -> bool:
    """Whether a mask is true anywhere. On a GPU, where the host would have to wait for the answer, always True."""
    return mask.is_cuda or bool(mask.any())


@lru_cache(maxsize=8)
def _schedule(steps: int, lr: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """By iteration, float32 (steps,): Adam's step with the correction of the first moment, and that of the second moment."""
    iteration = torch.arange(steps, device=device)
    decay = lr * (0.05 + 0.95 * (1 + torch.cos(math.pi * iteration / steps)) / 2)
    return decay / (1 - _BETA1 ** (iteration + 1)), 1 - _BETA2 ** (iteration + 1)


def build(threat: ThreatModel, **settings: int | float) -> CW:
    """CW with those settings; eps plays no part."""
    return CW(**settings)  # type: ignore[arg-type]


ENTRY = AttackEntry(
    AttackCard(
        name="cw",
        summary="smallest L2 perturbation by Adam, binary search over the constant for each sample",
        source="Carlini and Wagner 2017, arXiv 1608.04644",
        norms=("L2",),
        minimum_norm=True,
    ),
    build,
)
