"""Ascent of the expected margin of a randomised model, of which an example has to win the majority of draws.

Expectation over transformation (EOT): Athalye, Engstrom, Ilyas, Kwok, "Synthesizing robust adversarial examples", ICML 2018,
arXiv 1707.07397. Momentum averages gradients over steps as draws do within one (Dong et al. 2018, arXiv 1710.06081).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gauntlet.attacks.apgd_l1 import APGDL1
from gauntlet.attacks.ops.losses import Loss, cw
from gauntlet.attacks.ops.norms import per_image, project, random_point, steepest
from gauntlet.attacks.ops.threat import Norm
from gauntlet.attacks.ops.validators import one_of, whole_number
from gauntlet.attacks.parts.apgd_common import likely_target
from gauntlet.attacks.parts.several_draws import drawn_gradients
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.stage import Stage
from gauntlet.attacks.views.backward_modes import Backward

MOST_DRAWS = 32
_UNKNOWN = 8
"""Draws per gradient where the noise was not measured."""
_PASSES = 320
"""Backward passes of an ascent, as many steps as they give."""
_STEPS = 20, 160
"""Fewest and most steps of an ascent."""
_MOMENTUM = 0.9
_FIRST, _LAST = 0.5, 0.025
"""Length of the first and of the last step, as shares of eps; it falls linearly."""

WEIGHTS = ("margin", "share")
"""`margin`: the mean margin of the draws. `share`: the share of draws that are lost, with a sigmoid in place of the jump at
margin 0, as wide as the margins of the draws are spread."""


def draws_for_noise(noise: float | None) -> int:
    """The number of draws per gradient: the smallest power of two, up to 32, whose mean has at most half as much noise as signal.

    `noise`: the gradient noise scale, the number of draws whose mean has as much noise as signal (McCandlish et al. 2018, arXiv
    1812.06162: many more draws waste passes, many fewer waste steps); None if it is not known.
    """
    if noise is None:
        return _UNKNOWN
    return next((count for count in (1, 2, 4, 8, 16) if count >= 2 * noise), MOST_DRAWS)


def expectation_stages(noise: float | None, norm: Norm, backward: Backward = "true") -> tuple[Stage, ...]:
    """The stages that ascend the expectation over the draws of a randomised pipeline of that gradient noise.

    First a single frozen draw, which is cheap and already breaks what hardly depends on the draws; then the mean margin; then,
    over four times as many draws, the share of draws that are lost; then the margins of five classes in turn.
    """
    draws = draws_for_noise(noise)
    many = min(max(4 * draws, 8), MOST_DRAWS)
    rules: dict[str, Rule[Any]]
    if norm == "L1":
        rules = {
            "eot-margin": APGDL1(steps=_steps(_PASSES, draws), loss="cw", eot=draws),
            "eot-ce": APGDL1(steps=_steps(_PASSES, many), eot=many),
            "eot-targets": APGDL1(steps=_steps(_PASSES // 4, draws), loss="cw_targeted", targets=5, eot=draws),
        }
    else:
        rules = {
            "eot-frozen": ExpectedMargin(steps=20, eot=1, frozen=True),
            "eot-margin": ExpectedMargin(steps=_steps(_PASSES, draws), eot=draws),
            "eot-share": ExpectedMargin(steps=_steps(_PASSES, many), eot=many, weigh="share"),
            "eot-targets": ExpectedMargin(steps=_steps(_PASSES // 4, draws), eot=draws, targets=5),
        }
    technique = "eot" if backward == "true" else "bpda+eot"
    return tuple(Stage(label, rule, None, backward, technique=technique) for label, rule in rules.items())


def _steps(passes: int, draws: int) -> int:
    fewest, most = _STEPS
    return min(max(passes // draws, fewest), most)


class State(NamedTuple):
    """One ascent; leading dimension: the slot."""

    x: Tensor
    """(N, C, H, W), the iterate, not evaluated yet."""
    pace: Tensor
    """(N, C, H, W), decaying sum of the normalised gradients."""
    target: Tensor
    """int64 (N,), the class to reach; the label if untargeted."""


@dataclass(frozen=True, kw_only=True)
class ExpectedMargin(Rule[State]):
    """Projected ascent with momentum on the mean margin over fresh draws in each step.

    `steps`: number of steps from each start; `eot`: number of passes over which a gradient is averaged; `restarts`: number of
    starts, including the first; `targets`: number of most likely wrong classes to ascend towards in turn, 0 for the likeliest
    one at each point; `weigh`: one of `WEIGHTS`; `frozen`: whether all passes of a slot use the same random numbers, those of
    a model with keyed draws or of torch's, numpy's and Python's generators.

    An iterate is a candidate where half of its draws are misclassified. The mean of margins is ascended, not the margin of
    mean outputs, whose largest wrong class may win no draw.
    """

    steps: int = 60
    eot: int = 8
    restarts: int = 1
    targets: int = 0
    weigh: str = "margin"
    frozen: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "eot", "restarts"):
            whole_number(name, getattr(self, name), 1)
        whole_number("targets", self.targets, 0)
        one_of("weigh", self.weigh, WEIGHTS)

    @property
    def total_restarts(self) -> int:
        """`restarts`, times `targets` where there are any."""
        return self.restarts * max(1, self.targets)

    def for_classes(self, classes: int) -> ExpectedMargin:
        """With at most as many targets as there are wrong classes."""
        return replace(self, targets=min(self.targets, classes - 1))

    def start(self, oracle: Oracle) -> State:
        """A random point of the ball, and the class to reach."""
        x = random_point(oracle.clean, oracle.threat, oracle.draws)
        target = likely_target(oracle, self.targets) if self.targets else oracle.labels
        return State(x=x, pace=torch.zeros_like(x), target=target)

    def step(self, state: State, oracle: Oracle) -> State:
        """Average the gradients of the draws, and move."""
        loss = _towards(state.target) if self.targets else cw
        passes = drawn_gradients(oracle, state.x, loss, self.eot, frozen=self.frozen)
        gradients = torch.stack([one.gradient for one in passes])
        if self.weigh == "share" and self.eot > 1:
            weights = near_the_boundary(torch.stack([one.value for one in passes]))
            gradient = (gradients * weights.to(gradients.dtype)[..., None, None, None]).sum(0)
        else:
            gradient = gradients.mean(0)
        size = gradient.abs().flatten(1).mean(1).clamp_min(torch.finfo(gradient.dtype).tiny)
        pace = _MOMENTUM * state.pace + gradient / per_image(size, gradient)
        left = 1 - oracle.step.to(gradient.dtype) / self.steps
        length = oracle.threat.eps * (_FIRST * left).clamp_min(_LAST)
        moved = state.x + per_image(length, pace) * steepest(pace, oracle.threat.norm)
        return State(x=project(moved, oracle.clean, oracle.threat), pace=pace, target=state.target)


def near_the_boundary(values: Tensor) -> Tensor:
    """Weights (draws, N) of draws with margin losses `values` (draws, N): the slope of a sigmoid, with sum 1 for each sample.

    The sigmoid is as wide as the losses are spread (their standard deviation), so that a factor on the outputs changes nothing.
    """
    width = values.std(0, keepdim=True)
    share = torch.sigmoid(values / torch.where(width > 0, width, 1))
    slope = share * (1 - share)
    total = slope.sum(0, keepdim=True)
    return torch.where(total > 0, slope / torch.where(total > 0, total, 1), 1 / len(values))


def _towards(target: Tensor) -> Loss:
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return logits.gather(1, target[:, None]).squeeze(1) - logits.gather(1, labels[:, None]).squeeze(1)

    return loss
