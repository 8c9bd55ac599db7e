"""The policy of a gate: error rates, margin, floors and limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

from gauntlet.leaderboard.gate.conditions import NAMES as CONDITIONS
from gauntlet.leaderboard.gate.conditions import read_conditions


@dataclass(frozen=True)
class Policy:
    """The policy of a gate. Raises ValueError for a value outside its range."""

    alpha: float = 0.05
    """Chance of a false alarm over all cells, and of passing a drop as large as the margin."""
    margin: float = 0.02
    """The drop that must be ruled out, a share of the samples."""
    min_robust: float | Mapping[str, float] | None = None
    """Floor of the robust accuracy, 0..1, in the worst case over a model's cells: one for all models, or by pattern (shell
    wildcards) of the model's or the suite's name. It is compared with the observed accuracy."""
    allow_undecided: bool = False
    """Whether undecided cells may pass."""
    max_passes_ratio: float = 1.25
    """Limit of a cell's forward and backward passes, as a multiple of the baseline's."""
    max_memory_ratio: float = 1.5
    """Limit of a cell's peak memory, as a multiple of the baseline's."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("alpha", self.alpha, 0, 0.5),
            ("margin", self.margin, 0, 1),
            ("max_passes_ratio", self.max_passes_ratio, 0, np.inf),
            ("max_memory_ratio", self.max_memory_ratio, 0, np.inf),
        ):
            if not low < value < high:
                raise ValueError(f"{name} {value!r} must lie between {low} and {high}, both excluded")
        for pattern, floor in self.floors.items():
            if not 0 <= floor <= 1:
                raise ValueError(f"min_robust {floor!r} of {pattern!r} must be a share in 0..1, such as 0.5")

    @property
    def floors(self) -> Mapping[str, float]:
        """The floors by pattern."""
        if self.min_robust is None:
            return {}
        return self.min_robust if isinstance(self.min_robust, Mapping) else {"*": self.min_robust}

    @property
    def rule(self) -> str:
        """What the verdicts are about, as a sentence for reports."""
        return f"Margin {100 * self.margin:g} points, alpha {100 * self.alpha:g} %."


_RULES: Final = tuple(one.name for one in fields(Policy))


def policy_fields(policy: Policy) -> dict[str, Any]:
    """The policy as plain data, for the file of a baseline."""
    return {one.name: getattr(policy, one.name) for one in fields(policy)} | {"min_robust": dict(policy.floors)}


def read_policy(stored: Mapping[str, Any]) -> Policy:
    """The policy of `policy_fields`, also after JSON; conditions beside it are checked and left out.

    Raises ValueError or TypeError for anything else.
    """
    if unknown := stored.keys() - {*_RULES, *CONDITIONS}:
        raise ValueError(f"policy has the unknown rule {min(unknown)!r}: upgrade gauntlet")
    read_conditions(stored)
    rules = {name: value for name, value in stored.items() if name in _RULES}
    for name, value in rules.items():
        if name == "min_robust":
            fine = isinstance(value, Mapping) and all(type(floor) in (int, float) for floor in value.values())
        elif name == "allow_undecided":
            fine = isinstance(value, bool)
        else:
            fine = type(value) in (int, float)
        if not fine:
            raise TypeError(f"policy has {name}={value!r}")
    return Policy(**rules)


def deviations(stored: Mapping[str, Any], given: Policy) -> Iterator[str]:
    """A sentence, with both values, for each rule of `given` that is looser than the stored one; `alpha` must be the same.

    Alpha is the rate of two errors, so that neither direction is stricter. Rules that are not stored bind nothing.
    """
    base = read_policy(stored)
    for name in (name for name in stored if name in _RULES):
        before, now = getattr(base, name), getattr(given, name)
        if name == "min_robust":
            for pattern, floor in base.floors.items():
                if given.floors.get(pattern, -1.0) < floor:
                    has = given.floors.get(pattern, "none")
                    yield f"min_robust of {pattern!r} is {floor:g} in the baseline and {has} here"
        elif now != before if name == "alpha" else now > before:
            yield f"{name} is {before} in the baseline and {now} here"
