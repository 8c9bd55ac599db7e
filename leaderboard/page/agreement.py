"""How far the attacks of a table agree: which share of the samples that one of them breaks another one breaks too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gauntlet.leaderboard.page.content import RowKey
from gauntlet.leaderboard.results.sample_set import numbered
from gauntlet.leaderboard.results.summary import CellSummary
from gauntlet.leaderboard.stats.proportions import Proportion

MOST_ATTACKS: Final = 15
"""Number of attacks that are shown, the first of the rows."""


@dataclass(frozen=True)
class Agreement:
    """Counts over all rows of a table, of the rows in which both attacks finished."""

    labels: tuple[str, ...]
    shared: tuple[tuple[Proportion, ...], ...]
    """`shared[a][b]`: of the samples that attack a broke, those that attack b broke too."""
    alone: tuple[int, ...]
    """Number of samples that no other attack of its row broke, whether it is shown or not."""
    attacks: int
    """Number of attacks, shown or not."""


def agreement(rows: Sequence[RowKey], cells: Mapping[RowKey, Sequence[CellSummary]]) -> Agreement | None:
    """The agreement of the attacks of these rows; None for fewer than two attacks. Of several seeds, any counts."""
    labels = list(
        dict.fromkeys(
            cell.cell.attack for key in rows for cell in cells[key] if cell.cell.adversarial and _counts(cell)
        )
    )
    if len(labels) < 2:
        return None
    broken = np.zeros((len(labels), len(labels)), np.int64)
    both = np.zeros_like(broken)
    alone = np.zeros(len(labels), np.int64)
    for key in rows:
        found = [cell for cell in cells[key] if _counts(cell)]
        if not found:
            continue
        count, numbers = numbered([cell.samples for cell in found])
        fallen = np.zeros((len(labels), count), np.int64)
        covered = np.zeros((len(labels), count), np.int64)
        for cell, number in zip(found, numbers, strict=True):
            fallen[labels.index(cell.cell.attack), number[cell.broken]] = 1
            covered[labels.index(cell.cell.attack), number] = 1
        both += fallen @ fallen.T
        broken += fallen @ covered.T
        alone += (fallen * (fallen.sum(0) == 1)).sum(1)
    return Agreement(
        tuple(labels[:MOST_ATTACKS]),
        tuple(
            tuple(Proportion(int(two), int(one)) for two, one in zip(*pair, strict=True))
            for pair in zip(both[:MOST_ATTACKS, :MOST_ATTACKS], broken[:MOST_ATTACKS, :MOST_ATTACKS], strict=True)
        ),
        tuple(map(int, alone[:MOST_ATTACKS])),
        len(labels),
    )


def _counts(cell: CellSummary) -> bool:
    return cell.cell.adversarial and cell.status == "ok" and not cell.nothing_replayed
