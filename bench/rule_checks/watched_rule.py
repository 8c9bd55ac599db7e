"""A rule under watch: where it evaluates the model, what its state looks like, and what it changes in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor

from gauntlet.attacks.ops.losses import Loss
from gauntlet.attacks.ops.norms import distance, limit
from gauntlet.attacks.solving.oracle import Gradient, Oracle
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.wrapped_rule import WrappedRule


class StateError(Exception):
    """A rule's state is not what the solver can work with; the message is the sentence for the author."""


class WatchedRule(WrappedRule):
    """Adds a sentence to `complaints` for each kind of problem, the first of each kind."""

    def __init__(self, rule: Rule[Any], complaints: dict[str, str]) -> None:
        """`complaints`: sentences by kind of problem."""
        super().__init__(rule)
        self.complaints = complaints

    def start(self, oracle: Oracle) -> Any:
        """Raises StateError for a state that is not a named tuple of tensors, one row for each slot."""
        clean = oracle.clean.clone()
        state = self.rule.start(cast("Oracle", _WatchedOracle(oracle, self)))
        self._unchanged("start", oracle, clean)
        _check_state(state, "start", len(clean))
        return state

    def step(self, state: Any, oracle: Oracle) -> Any:
        """Raises StateError, as `start` does."""
        clean, before = oracle.clean.clone(), [value.clone() for value in state]
        after = self.rule.step(state, cast("Oracle", _WatchedOracle(oracle, self)))
        self._unchanged("step", oracle, clean)
        for name, old, new in zip(state._fields, before, state, strict=True):
            if not _equal(old, new):
                self.complain(
                    "in place",
                    f"`step` changes `{name}` of its state in place: return new tensors, since the solver repeats a step "
                    "when memory runs out.",
                )
        _check_state(after, "step", len(clean))
        last = self.rule.last(after)
        if last is not None:
            self.look(last, oracle)
        return after

    def look(self, x: Tensor, oracle: Oracle) -> None:
        """Check a point that the rule evaluates."""
        if x.shape != oracle.clean.shape:
            raise StateError(
                f"It evaluates points of shape {tuple(x.shape)} where the images have shape {tuple(oracle.clean.shape)}."
            )
        if not bool(x.isfinite().all()):
            self.complain("finite", "It evaluates a point that is not finite.")
            return
        low, high = float(x.min()), float(x.max())
        if low < 0 or high > 1:
            self.complain(
                "box",
                f"It evaluates a point outside the box [0, 1], with pixels from {low:.4g} to {high:.4g}: "
                "use `gauntlet.ops.project`, which keeps points in the ball and in the box.",
            )
        if not (self.leaves_ball or self.minimum_norm):
            furthest = float(distance(x, oracle.clean, oracle.threat.norm).max())
            if furthest > limit(oracle.threat):
                self.complain(
                    "ball",
                    f"It evaluates a point outside the ball, at a distance of {furthest:.6g} where eps is "
                    f"{oracle.threat.eps:.6g} ({oracle.threat.norm}): use `gauntlet.ops.project`, or set "
                    "`leaves_ball = True` if the algorithm needs such points.",
                )

    def complain(self, kind: str, sentence: str) -> None:
        """Keep the first sentence of that kind."""
        self.complaints.setdefault(kind, sentence)

    def _unchanged(self, method: str, oracle: Oracle, clean: Tensor) -> None:
        if not _equal(oracle.clean, clean):
            self.complain("clean", f"`{method}` changes `oracle.clean` in place: it must stay the clean image.")


class _WatchedOracle:
    """An oracle that reports where a rule evaluates the model."""

    def __init__(self, oracle: Oracle, rule: WatchedRule) -> None:
        self.__dict__.update(_oracle=oracle, _rule=rule)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._oracle, name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a rule sets oracle.{name}, which belongs to the solver")

    def logits(self, x: Tensor) -> Tensor:
        self._rule.look(x, self._oracle)
        return cast("Tensor", self._oracle.logits(x))

    def gradient(self, x: Tensor, loss: Loss, *, through: Callable[[Tensor], Tensor] | None = None) -> Gradient:
        self._rule.look(x, self._oracle)
        return cast("Gradient", self._oracle.gradient(x, loss, through=through))


def _check_state(state: Any, method: str, slots: int) -> None:
    if not isinstance(state, tuple) or not hasattr(state, "_fields"):
        raise StateError(f"`{method}` returns a {type(state).__name__}: return a NamedTuple of tensors.")
    for name, value in zip(state._fields, state, strict=True):
        if not isinstance(value, Tensor):
            raise StateError(f"`{name}` of the state is a {type(value).__name__}: each field must be a tensor.")
        if value.dim() == 0 or len(value) != slots:
            raise StateError(
                f"`{name}` of the state has shape {tuple(value.shape)} for {slots} slots: the first dimension of each "
                "field must be the slot."
            )


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())
