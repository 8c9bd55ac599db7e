"""The interface of an attack: a small rule over a batch of independent slots. The solver owns everything else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from gauntlet.attacks.solving.oracle import Oracle

S = TypeVar("S", bound="tuple[Any, ...]")
"""A rule's state: a NamedTuple of tensors whose leading dimension is the slot."""


class Rule(ABC, Generic[S]):
    """One attack. A slot is one sample at one restart; slots stand at different steps and never influence each other.

    The oracle watches every point that a rule evaluates: a misclassified one is verified at once and, where it lies in
    the ball, ends its slot (minimum-norm rules: the closest one is kept, and the slot runs to its end). A rule therefore
    keeps no record of successes, counts nothing, and never looks at another slot. Rules are frozen dataclasses of their
    settings; `repr` is part of the key of stored results.
    """

    version: ClassVar[int] = 1
    """Rises whenever the rule's output changes: it is part of the key of stored results."""
    leaves_ball: ClassVar[bool] = False
    """Whether points outside the ball are evaluated on the way: those are no candidates, rather than false claims."""

    @property
    @abstractmethod
    def budget(self) -> int:
        """Calls of `step` for one slot, at most."""

    @property
    def minimum_norm(self) -> bool:
        """Whether the smallest perturbation is sought, whatever eps is."""
        return False

    @property
    def total_restarts(self) -> int:
        """How often a sample that was not broken is started afresh, the first time counted."""
        return 1

    def for_classes(self, classes: int) -> Rule[S]:
        """The rule for a model of that many classes, where its settings ask for more than there are; else itself."""
        return self

    @abstractmethod
    def start(self, oracle: Oracle) -> S:
        """The state of new slots, for `oracle.clean` (N, C, H, W), `oracle.labels` (N,) and `oracle.draws`."""

    @abstractmethod
    def step(self, state: S, oracle: Oracle) -> S:
        """One step for every slot of the batch."""

    @abstractmethod
    def last(self, state: S) -> Tensor | None:
        """The iterate that `step` has made but not evaluated yet (N, C, H, W); None where all were evaluated."""

    def finished(self, state: S) -> Tensor | None:
        """Slots that need no further step before the budget is spent, bool (N,); None where the budget decides."""
        return None
