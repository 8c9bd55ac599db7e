"""The interface of an attack: one step for a batch of independent slots. The solver owns everything else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from gauntlet.attacks.solving.oracle import Oracle

S = TypeVar("S", bound="tuple[Any, ...]")
"""A rule's state: a NamedTuple of tensors whose leading dimension is the slot."""

_FORMER_NAMES = {"tries": "total_restarts", "roams": "leaves_ball"}


class Rule(ABC, Generic[S]):
    """An attack. A slot is one sample at one restart. Slots stand at different steps and never influence each other.

    A rule needs `start` and `step`, and a setting `steps` or its own `budget`. The oracle sees every point that a rule
    evaluates. A misclassified point is verified at once and, if it lies in the ball, ends its slot; a minimum-norm rule
    runs to its end, and the closest point is kept. So a rule does not track successes, count passes or stop early.

    Rules are frozen dataclasses of their settings: `repr(rule)` is part of the key of stored results.
    """

    version: ClassVar[int] = 1
    """Increase it whenever the rule's output changes: it is part of the key of stored results."""
    leaves_ball: ClassVar[bool] = False
    """Whether the rule evaluates points outside the ball on its way. Such points are not candidates."""
    uses_ends: ClassVar[bool] = False
    """Whether the rule looks at `oracle.ends`, where earlier stages of a cascade ended."""
    looks_ahead: ClassVar[bool] = False
    """Whether a step may evaluate several moves of a slot, up to `oracle.ahead` (`gauntlet.attacks.solving.look_ahead`)."""
    smooths: ClassVar[bool] = False
    """Whether the rule follows gradients of the loss's mean over random points (`stage_conditions.Smoothed`)."""

    ranks_targets: ClassVar[bool] = False
    """Whether the rule ranks the classes that later stages of a cascade attack first (`Slots.ranked`)."""
    least_classes: ClassVar[int] = 2
    """A stage of a cascade with this rule is left out where the model has fewer classes."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Raises TypeError for a method under a name that the interface no longer has."""
        super().__init_subclass__(**kwargs)
        for former, name in _FORMER_NAMES.items():
            if former in vars(cls):
                raise TypeError(f"{cls.__name__}.{former} is called {name} in this version of Gauntlet: rename it")

    @property
    def budget(self) -> int:
        """Largest number of calls of `step` for a slot. By default the setting `steps`."""
        steps: int | None = getattr(self, "steps", None)
        if steps is None:
            raise TypeError(f"{type(self).__name__} has no setting `steps`: add it, or override `budget`")
        return steps

    @property
    def total_restarts(self) -> int:
        """How often a sample that is not broken is started, including the first time. By default the setting `restarts`,
        or 1 without it; rules that take their targets in turn multiply it by the number of targets."""
        restarts: int = getattr(self, "restarts", 1)
        return restarts

    @property
    def minimum_norm(self) -> bool:
        """Whether the rule seeks the smallest perturbation, whatever eps is. By default False."""
        return False

    def for_classes(self, classes: int) -> Rule[S]:
        """The rule for a model with that many classes, for rules whose settings may ask for more. By default itself."""
        return self

    @abstractmethod
    def start(self, oracle: Oracle) -> S:
        """The state of new slots, from `oracle.clean` (N, C, H, W), `oracle.labels` (N,) and `oracle.draws`."""

    @abstractmethod
    def step(self, state: S, oracle: Oracle) -> S:
        """The state after one step of every slot. Tensors are replaced, never changed in place."""

    def last(self, state: S) -> Tensor | None:
        """The iterate (N, C, H, W) that `step` has made but not evaluated, which the solver evaluates when the budget is spent.

        By default the state's field `x`, or None if the state has no such field: every point has been evaluated.
        """
        x: Tensor | None = getattr(state, "x", None)
        return x

    def finished(self, state: S) -> Tensor | None:
        """Slots that stop before their budget is spent, bool (N,). By default None: no slot does."""
        return None

    def gap(self, state: S) -> Tensor | None:
        """The distance from success, (N,): 0 there, infinite where nothing is known, in a unit in which each doubling of the
        steps gains about as much. By default None. Stages with `patience` give up the samples that it calls hopeless.
        """
        return None
