"""A start of Auto-PGD by another loss: away from where its own loss begins, for starts that end in different places.

- `random`: the logits weighted at random (Tashiro, Song and Ermon, "Diversity can be transferred: output diversification
  for white- and black-box attacks", NeurIPS 2020, arXiv 2003.06878: ODI). The weights are drawn for each sample and restart.
- `parts`: one part of the margin, at odd restarts the largest other logit, else minus the label's (Ma et al., "Imbalanced
  gradients", Machine Learning 2023, arXiv 2006.13726: margin decomposition).
- `probable_parts`: the same of probabilities (Xie et al., CVPR 2025, arXiv 2411.15210: PMA).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from gauntlet.attacks.apgd import APGD, State
from gauntlet.attacks.ops.dlr import TARGETED
from gauntlet.attacks.ops.losses import Loss, largest_other
from gauntlet.attacks.ops.norms import per_image, project, steepest
from gauntlet.attacks.ops.random import Draws
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.ops.validators import one_of, whole_number
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.solving.known import Rows
from gauntlet.attacks.solving.oracle import Gradient, Oracle
from gauntlet.attacks.solving.wrapped_rule import WrappedRule

LOSSES = ("random", "parts", "probable_parts")
_WEIGHTS = 7
"""Purpose of the draw of the weights."""


@dataclass(frozen=True, kw_only=True)
class WarmUp(WrappedRule):
    """APGD after `passes` steps of steepest ascent on the loss `warm_up`, from the random point of its start.

    The i-th step has length eps · (1 + cos(π i / passes)), as in the code of PMA. `steps`, `restarts`, `loss` and `targets` are
    those of APGD. Departure: the papers go on by PGD.
    """

    warm_up: str = "random"
    passes: int = 2
    steps: int = 100
    restarts: int = 1
    loss: str = "cw"
    targets: int = 9

    def __post_init__(self) -> None:
        one_of("warm_up", self.warm_up, LOSSES)
        whole_number("passes", self.passes, 1)
        rule = APGD(steps=self.steps, restarts=self.restarts, loss=self.loss, targets=self.targets)
        # The dataclass is frozen; the rule follows from its settings.
        object.__setattr__(self, "loss", rule.loss)
        object.__setattr__(self, "rule", rule)

    @property
    def budget(self) -> int:
        """The steps of both."""
        return self.passes + self.rule.budget

    def for_classes(self, classes: int) -> WarmUp:
        """With at most as many targets as there are wrong classes."""
        return replace(self, targets=min(self.targets, classes - 1)) if self.loss in TARGETED else self

    def step(self, state: Any, oracle: Oracle) -> Any:
        """A step of the warm-up, or of the rule once that is over: one pass for all slots."""
        warm = oracle.step < self.passes
        shown = _Warming(oracle, self, warm)
        after = self.rule.step(state, cast("Oracle", shown))
        if not (oracle.made < self.passes).any():
            return after
        size = oracle.threat.eps * (1 + torch.cos(math.pi / self.passes * oracle.step.to(state.x.dtype)))
        assert shown.gradient_seen is not None
        moved = state.x + per_image(size, state.x) * steepest(shown.gradient_seen, oracle.threat.norm)
        moved = project(moved, oracle.clean, oracle.threat)
        kept = state._replace(x=moved, before=moved)
        return State(*(torch.where(_rows(warm, old), old, new) for old, new in zip(kept, after, strict=True)))

    def value(self, logits: Tensor, labels: Tensor, draws: Draws) -> Tensor:
        """The loss of the warm-up, (N,), at logits (N, K)."""
        if self.warm_up == "random":
            first = draws.at(step=torch.zeros_like(draws.step))
            return ((2 * first.uniform((logits.shape[1],), _WEIGHTS, logits.dtype) - 1) * logits).sum(1)
        terms = logits.softmax(1) if self.warm_up == "probable_parts" else logits
        own = terms.gather(1, labels[:, None]).squeeze(1)
        return torch.where(draws.restart % 2 == 1, largest_other(terms, labels), -own)


class _Warming:
    """An oracle that shows slots in the warm-up their own loss, and counts the steps of the rule from its end."""

    def __init__(self, oracle: Oracle, rule: WarmUp, warm: Tensor) -> None:
        self._oracle, self._rule, self._warm = oracle, rule, warm
        self.gradient_seen: Tensor | None = None

    @property
    def step(self) -> Tensor:
        return (self._oracle.step - self._rule.passes).clamp_min(0)

    @property
    def made(self) -> Rows:
        return (self._oracle.made - self._rule.passes).clip(0)

    def gradient(self, x: Tensor, loss: Loss, *, through: Callable[[Tensor], Tensor] | None = None) -> Gradient:
        oracle = self._oracle

        def both(logits: Tensor, labels: Tensor) -> Tensor:
            return torch.where(self._warm, self._rule.value(logits, labels, oracle.draws), loss(logits, labels))

        one = oracle.gradient(x, both, through=through)
        self.gradient_seen = one.gradient
        return one

    def __getattr__(self, name: str) -> Any:
        return getattr(self._oracle, name)


def _rows(mask: Tensor, like: Tensor) -> Tensor:
    return mask.view(-1, *[1] * (like.dim() - 1))


def build(threat: ThreatModel, **settings: int | str) -> WarmUp:
    """APGD with those settings after a warm-up."""
    return WarmUp(**settings)  # type: ignore[arg-type]


ENTRY = AttackEntry(
    AttackCard(
        name="apgd-warm",
        summary="Auto-PGD after some steps on another loss: random logits (ODI), or parts of the margin (MD, PMA)",
        source="Tashiro et al. 2020, arXiv 2003.06878; Ma et al. 2023, arXiv 2006.13726; Xie et al. 2025, arXiv 2411.15210",
        norms=("Linf", "L2"),
    ),
    build,
)
