"""A row of the leaderboard: one model behind one defense under one threat model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gauntlet.leaderboard.results.cell_summary import Status
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.rows.bracket import Bracket
from gauntlet.leaderboard.rows.conditions import Conditions
from gauntlet.leaderboard.rows.corruptions import CorruptionAccuracy
from gauntlet.leaderboard.rows.worst_case import WorstCase
from gauntlet.leaderboard.stats.proportions import Proportion

AttackEntry = Proportion | Literal["error", "–"]
"""Robust accuracy under one attack; `error` if it failed, `–` if it has not finished or had nothing to replay."""


@dataclass(frozen=True)
class WorstClass:
    """The class with the lowest robust accuracy."""

    label: int
    robust: Proportion
    name: str = ""
    """Empty where classes have no names."""

    @property
    def title(self) -> str:
        """The name, or else the label."""
        return self.name or str(self.label)


@dataclass(frozen=True)
class LeaderboardRow:
    """One model × defense × threat model (× data × suite, if a run has several)."""

    model: str
    defense: str
    threat: str
    norm: str
    eps: float
    data: str
    suite: str
    seeds: tuple[int, ...]
    """Sorted."""
    status: Status
    """The worst status of the cells that decide the worst case: error before unfinished before ok."""
    clean: Proportion
    """On the samples of the worst case; if it has none, on those of the cell that covers most samples."""
    robust: Proportion
    """Worst case over all attacks and seeds; to be read together with `status`."""
    attacks: Mapping[str, AttackEntry]
    """By label, in the order of the plan; of several seeds of an attack, the worst case."""
    worst_class: WorstClass | None
    """In the worst case over the attacks; None if no sample was covered by all of them."""
    naive: Proportion | None
    """Robust accuracy under the naive attack alone; None if it was not run or has not finished."""
    bracket: Bracket | None
    """None if no certificate was asked for."""
    corruption: CorruptionAccuracy | None
    """Accuracy under common corruptions, of any suite; None if none were asked for. No other field depends on it."""
    seconds: float
    """Time of all attacks together."""
    forwards_per_sample: float
    """Passes of all attacks together, a mean over the samples; NaN if a cell has no samples."""
    backwards_per_sample: float
    peak_memory_mib: float
    flags: tuple[Flag, ...]
    techniques: frozenset[str]
    """Techniques of the attacks that finished."""
    answered: frozenset[str]
    """Techniques that every sample that stands has faced, passed tests, and evidence: they lift the flags that need them."""
    randomised: bool
    problems: tuple[str, ...]
    """A sentence for each deciding cell that failed or is not finished, and one if there is no attack at all."""
    worst_case: WorstCase = field(repr=False, compare=False)
    conditions: Conditions = field(repr=False, compare=False)
    """Rows are ranked together only if these are equal."""
    class_names: tuple[str, ...] = ()
    """Names of the classes, by label, where the model is restricted to some of its own; empty for others."""
    comparison: str = ""
    """`A`, `B`, …: the comparison that the row is ranked in, in the order of the table; empty without a rank."""
    compared: int = 0
    """Number of rows that are ranked in this comparison."""
    rank: int | None = None
    """1 + the number of rows that are significantly better; None for the reasons in `unranked`."""
    rank_interval: tuple[int, int] | None = None
    """(1 + rows significantly better, ranked rows of the same comparison − rows significantly worse)."""
    unranked: tuple[str, ...] = ()
    """The reasons why the row has no rank, as sentences."""

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """Model, defense, threat, data and suite, as `worst_case.row_key` of the row's cells."""
        return self.model, self.defense, self.threat, self.data, self.suite

    @property
    def title(self) -> str:
        """Model and defense."""
        return self.model if self.defense == "none" else f"{self.model} × {self.defense}"

    @property
    def worst_attack(self) -> str | None:
        """Label of the attack with the lowest robust accuracy; None if none has finished."""
        finished = {label: p.estimate for label, p in self.attacks.items() if isinstance(p, Proportion)}
        return min(finished, key=lambda label: finished[label], default=None)
