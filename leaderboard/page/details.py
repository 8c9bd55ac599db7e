"""What the page of a row needs of its blocks, beside their summaries: confusion under attack, and distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.pictures.confusion import confusion_matrix
from gauntlet.leaderboard.pictures.curves import minimum_distances, standing
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CellResult


@dataclass(frozen=True, eq=False)
class EpsCurve:
    """Robust accuracy at every eps from minimum-norm attacks: a step function, the worst case of these attacks."""

    attacks: tuple[str, ...]
    eps: npt.NDArray[np.float64]
    """0, and then the ascending eps at which samples are broken."""
    standing: npt.NDArray[np.int64]
    """Number of samples that stand in [eps[i], eps[i + 1])."""
    n: int


@dataclass(frozen=True)
class PictureColumn:
    """An adversarial example as three PNG pictures, each a `data:` address."""

    sample: str
    label: str
    prediction: str
    attack: str
    distance: float
    clean: str
    perturbation: str
    adversarial: str


@dataclass(frozen=True, eq=False)
class RowDetails:
    """What a row's page shows beside the figures of the tables."""

    confusion: npt.NDArray[np.int64] | None = None
    """(K, K), label × prediction in the worst case; None where no attack has results."""
    curve: EpsCurve | None = None
    """None without minimum-norm attacks."""
    pictures: tuple[PictureColumn, ...] = ()


def row_details(results: Sequence[CellResult]) -> RowDetails:
    """The details of the row with these cells, which are read without their examples."""
    attacked = [result for result in results if result.cell.adversarial and cells.covered(result)]
    if not attacked:
        return RowDetails()
    return RowDetails(confusion_matrix(attacked), eps_curve(attacked))


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
