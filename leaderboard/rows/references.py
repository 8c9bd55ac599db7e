"""Published figures beside measured ones: the figure that a source states, the difference, and whether the interval covers it.

They are shown separately and take no part in ranks, tests or the worst case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from gauntlet.leaderboard.results.published_figure import CORRUPTIONS, PublishedFigure
from gauntlet.leaderboard.rows.row import LeaderboardRow


class Estimate(Protocol):
    """A share of `n` samples with its 95 % interval."""

    @property
    def estimate(self) -> float: ...  # noqa: D102
    @property
    def interval(self) -> tuple[float, float]: ...  # noqa: D102
    @property
    def n(self) -> int: ...  # noqa: D102


@dataclass(frozen=True)
class Reference:
    """A published figure and the measured figure that it is compared with."""

    row: LeaderboardRow
    published: PublishedFigure
    figure: Literal["clean", "robust", "corruptions"]
    stated: float
    """The published accuracy, a share."""
    measured: Estimate

    @property
    def attack(self) -> str:
        """The attack that the source names; empty for a clean accuracy."""
        return "" if self.figure == "clean" else self.published.attack

    @property
    def difference(self) -> float:
        """Measured minus published."""
        return self.measured.estimate - self.stated

    @property
    def covered(self) -> bool:
        """Whether the published figure lies in the interval of the measured one."""
        low, high = self.measured.interval
        return low <= self.stated <= high


def references(rows: Sequence[LeaderboardRow], published: Sequence[tuple[str, PublishedFigure]]) -> list[Reference]:
    """Compare published figures, each with the name of its model in the tables, with the finished rows of that model.

    A robust accuracy is compared with the rows of its model and threat model without a defense, a clean accuracy with the
    first row of its model on each data set. Names of data sets differ between sources: whether two names mean the same data
    is left to the reader, who sees both.
    """
    matched: list[Reference] = []
    clean: set[tuple[str, str, float]] = set()
    for name, figure in published:
        candidates = [row for row in rows if row.model == name and row.defense == "none" and row.status == "ok"]
        for row in candidates:
            # A source repeats the clean accuracy beside each robust accuracy.
            if figure.clean is not None and row.clean.n and (name, row.data, figure.clean) not in clean:
                clean.add((name, row.data, figure.clean))
                matched.append(Reference(row, figure, "clean", figure.clean, row.clean))
        matched += _corruption_references(candidates, figure) if figure.threat == CORRUPTIONS else ()
        if figure.robust is not None and figure.threat != CORRUPTIONS:
            same = [row for row in candidates if row.threat == figure.threat and row.robust.n]
            matched += [Reference(row, figure, "robust", figure.robust, row.robust) for row in same]
    return matched


def _corruption_references(rows: Sequence[LeaderboardRow], figure: PublishedFigure) -> list[Reference]:
    """The published accuracy under corruptions beside the first measured one on each data set."""
    found: dict[str, Reference] = {}
    for row in rows:
        if figure.robust is not None and row.corruption is not None and row.corruption.mean.n:
            found.setdefault(row.data, Reference(row, figure, "corruptions", figure.robust, row.corruption.mean))
    return list(found.values())
