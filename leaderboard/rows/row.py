"""A row of the leaderboard: one model behind one defense under one threat model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gauntlet.leaderboard.results.cell_summary import Status
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.rows.bracket import Bracket
from gauntlet.leaderboard.rows.corruptions import CorruptionAccuracy
from gauntlet.leaderboard.rows.worst_case import WorstCase
from gauntlet.leaderboard.stats.proportions import Proportion

AttackEntry = Proportion | Literal["error", "–"]
"""Robust accuracy under one attack, or what stands in its place: it failed, or it has not finished."""


@dataclass(frozen=True)
class ClassAccuracy:
    """Robust accuracy of one class."""

    label: int
    robust: Proportion


@dataclass(frozen=True)
class Row:
    """One model × defense × threat model (× data × suite, where a run has several)."""

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
    """The worst of the row's cells: error before unfinished before ok."""
    clean: Proportion
    """On the samples of the worst case; where that has none, on those of the cell that covers most."""
    robust: Proportion
    """Worst case over all attacks and seeds; to be read with `status`."""
    attacks: Mapping[str, AttackEntry]
    """By label, in the order of the plan; several seeds of one attack are taken as its worst case."""
    worst_class: ClassAccuracy | None
    """In the worst case over the attacks; None where no sample was covered by all."""
    naive: Proportion | None
    """Robust accuracy under the naive attack alone; None where there was none, or it has not finished."""
    bracket: Bracket | None
    """None where nothing was to be proven."""
    corruption: CorruptionAccuracy | None
    """Under common corruptions, of whichever suite; None where none was asked for. No part of anything else in the row."""
    seconds: float
    """Of all attacks together."""
    forwards_per_sample: float
    """Passes of all attacks together, a mean over the samples; NaN where a cell has no samples."""
    backwards_per_sample: float
    peak_memory_mib: float
    flags: tuple[Flag, ...]
    ways: frozenset[str]
    """Ways of attack that finished, see `CellInfo.ways`."""
    randomised: bool
    problems: tuple[str, ...]
    """A sentence for each cell that failed or is not finished, and where there is no attack at all."""
    worst_case: WorstCase = field(repr=False, compare=False)
    rank: int | None = None
    """1 + the number of rows that are significantly better; None where `unranked` says why."""
    rank_interval: tuple[int, int] | None = None
    """(1 + rows significantly better, ranked rows of the same comparison − rows significantly worse)."""
    unranked: tuple[str, ...] = ()
    """Sentences: why the row has no rank."""

    @property
    def title(self) -> str:
        """Model and defense."""
        return self.model if self.defense == "none" else f"{self.model} × {self.defense}"

    @property
    def worst_attack(self) -> str | None:
        """Label of the attack with the lowest robust accuracy, None where none has finished."""
        finished = {label: p.estimate for label, p in self.attacks.items() if isinstance(p, Proportion)}
        return min(finished, key=lambda label: finished[label], default=None)

    @property
    def comparison(self) -> tuple[str, str, str, tuple[int, ...], tuple[str, ...]]:
        """What two rows must share to be ranked against each other.

        Data, threat model, suite, seeds, and the ids of the samples in their order.
        """
        ids = tuple(str(name) for name in self.worst_case.id)
        return self.data, self.threat, self.suite, self.seeds, ids
