"""Search on the mean of frozen draws: a randomised model that stands still, for rules that compare the answers of points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from gauntlet.attacks.ops.validators import whole_number
from gauntlet.attacks.parts.several_draws import drawn_logits
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.wrapped_rule import WrappedRule


@dataclass(frozen=True, kw_only=True)
class Averaged(WrappedRule):
    """A rule that uses logits alone, shown the mean outputs of `eot` draws, which are the same at every point of a slot.

    Of labels, means are shares of votes. With fresh draws a search would keep the points that were lucky, and stand still. A
    point is a candidate where half of the draws are misclassified; its verification takes other draws.

    Sample average approximation: Kleywegt, Shapiro, Homem-de-Mello, SIAM Journal on Optimization 12 (2002).
    """

    rule: Rule[Any]
    eot: int = 8

    def __post_init__(self) -> None:
        whole_number("eot", self.eot, 1)
        if self.rule.minimum_norm:
            raise ValueError(
                f"rule={self.rule!r} seeks the smallest perturbation, which a mean of draws does not say: give a rule that stays "
                "in the ball, such as square"
            )

    def start(self, oracle: Oracle) -> Any:
        """The rule's, on the mean of the draws."""
        return self.rule.start(cast("Oracle", _MeanOracle(oracle, self.eot)))

    def step(self, state: Any, oracle: Oracle) -> Any:
        """The rule's, on the mean of the draws."""
        return self.rule.step(state, cast("Oracle", _MeanOracle(oracle, self.eot)))


class _MeanOracle:
    """An oracle whose logits are the mean of frozen draws."""

    def __init__(self, oracle: Oracle, count: int) -> None:
        self._oracle = oracle
        self._count = count

    def logits(self, x: Tensor) -> Tensor:
        """(N, K)."""
        return torch.stack(drawn_logits(self._oracle, x, self._count, frozen=True)).mean(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._oracle, name)
