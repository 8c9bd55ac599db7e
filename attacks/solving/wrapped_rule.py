"""A rule around another rule, to watch it."""

from __future__ import annotations

import copy
from typing import Any, Self

from torch import Tensor

from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule


class WrappedRule(Rule[Any]):
    """Passes every call on to `rule`; subclasses override what they watch."""

    def __init__(self, rule: Rule[Any]) -> None:
        """Wraps `rule`."""
        self.rule = rule
        self.leaves_ball = rule.leaves_ball  # type: ignore[misc]
        self.uses_ends = rule.uses_ends  # type: ignore[misc]

    @property
    def budget(self) -> int:
        """That of the rule."""
        return self.rule.budget

    @property
    def total_restarts(self) -> int:
        """That of the rule."""
        return self.rule.total_restarts

    @property
    def minimum_norm(self) -> bool:
        """That of the rule."""
        return self.rule.minimum_norm

    def for_classes(self, classes: int) -> Self:
        """The same around the rule for that many classes."""
        other = copy.copy(self)
        other.rule = self.rule.for_classes(classes)
        return other

    def start(self, oracle: Oracle) -> Any:
        """The rule's."""
        return self.rule.start(oracle)

    def step(self, state: Any, oracle: Oracle) -> Any:
        """The rule's."""
        return self.rule.step(state, oracle)

    def last(self, state: Any) -> Tensor | None:
        """The rule's."""
        return self.rule.last(state)

    def finished(self, state: Any) -> Tensor | None:
        """The rule's."""
        return self.rule.finished(state)

    def gap(self, state: Any) -> Tensor | None:
        """The rule's."""
        return self.rule.gap(state)
