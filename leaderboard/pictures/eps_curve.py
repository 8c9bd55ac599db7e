"""Robust accuracy at every eps, from the distances that minimum-norm attacks found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.pictures.curves import minimum_distances, standing
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CellResult
from gauntlet.leaderboard.stats.proportions import Proportion


@dataclass(frozen=True, eq=False)
class EpsCurve:
    """Robust accuracy at every eps from minimum-norm attacks: a step function, the worst case of these attacks."""

    attacks: tuple[str, ...]
    eps: npt.NDArray[np.float64]
    """0, and then the ascending eps at which samples are broken."""
    standing: npt.NDArray[np.int64]
    """Number of samples that stand in [eps[i], eps[i + 1])."""
    n: int

    def at(self, eps: float) -> Proportion:
        """The samples that stand at an eps, which is not negative: those with no example at that distance or below."""
        place = int(np.searchsorted(self.eps, eps, side="right")) - 1
        return Proportion(int(self.standing[place]), self.n)


def eps_curve(results: Sequence[CellResult]) -> EpsCurve | None:
    """The curve of the minimum-norm cells that have results on the same samples as the first of them; None without any."""
    found = [result for result in results if result.cell.minimum_norm and cells.covered(result)]
    if not found:
        return None
    ids = cells.outcomes(found[0]).id
    same = [result for result in found if np.array_equal(cells.outcomes(result).id, ids)]
    distances: list[npt.NDArray[np.float64]] = []
    correct: npt.NDArray[np.bool_] | Any = None
    for result in same:
        distance, right = minimum_distances(result)
        distances.append(np.where(np.isnan(distance), np.inf, distance))
        correct = right if correct is None else correct & right
    eps, counts = standing(np.min(distances, axis=0), correct)
    return EpsCurve(tuple(dict.fromkeys(result.cell.attack for result in same)), eps, counts, len(ids))
