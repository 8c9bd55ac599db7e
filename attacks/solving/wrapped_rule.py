"""A rule around another rule, to watch it or to show it another oracle."""

from __future__ import annotations

import copy
from typing import Any, Self

from torch import Tensor

from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule


class WrappedRule(Rule[Any]):
    """Passes every call on to `rule`; subclasses override what they watch or change."""

    def __init__(self, rule: Rule[Any]) -> None:
        """Wraps `rule`."""
        self.rule = rule

    @property
    def version(self) -> int:  # type: ignore[override]
        """That of the rule."""
        return self.rule.version

    @property
    def leaves_ball(self) -> bool:  # type: ignore[override]
        """That of the rule."""
        return self.rule.leaves_ball

    @property
    def uses_ends(self) -> bool:  # type: ignore[override]
        """That of the rule."""
        return self.rule.uses_ends

    @property
    def smooths(self) -> bool:  # type: ignore[override]
        """That of the rule."""
        return self.rule.smooths

    @property
    def ranks_targets(self) -> bool:  # type: ignore[override]
        """That of the rule."""
        return self.rule.ranks_targets

    @property
    def least_classes(self) -> int:  # type: ignore[override]
        """That of the rule."""
        return self.rule.least_classes

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
        # Subclasses may be frozen dataclasses.
        object.__setattr__(other, "rule", self.rule.for_classes(classes))
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
