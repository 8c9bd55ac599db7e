"""The worst case over the attacks of one row: a sample is robust only if no attack broke it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.results.cell_summary import Outcomes, majority_right, outcomes, status
from gauntlet.leaderboard.results.record import CORRUPTION, CellInfo, CellResult
from gauntlet.leaderboard.stats.proportions import Proportion


@dataclass(frozen=True, eq=False)
class WorstCase:
    """Per-sample outcomes against all attacks of a row, arrays of length n. Corruptions are none of them.

    The samples are those that every cell of the row covered, in the order of the first cell: one that has not faced
    some attack is in neither the numerator nor the denominator. Where a cell failed before its first block, n is 0.
    """

    id: npt.NDArray[np.str_]
    label: npt.NDArray[np.int64]
    correct: npt.NDArray[np.bool_]
    """When clean."""
    robust: npt.NDArray[np.bool_]
    success: npt.NDArray[np.float64]
    """Share of the scoring draws in which the worst example is misclassified: 0 or 1 for a deterministic model. An estimate
    of the probability, from `record.DRAWS` draws."""
    complete: bool
    """Whether every cell of the row finished; otherwise the figure must not be compared with others."""

    def __len__(self) -> int:
        return len(self.id)

    @property
    def clean(self) -> Proportion:
        """Clean accuracy on these samples."""
        return Proportion.of(self.correct)

    @property
    def accuracy(self) -> Proportion:
        """Robust accuracy: the mean of the per-sample minimum over the attacks, not the minimum of their means."""
        return Proportion.of(self.robust)

    def weakest_class(self) -> tuple[int, Proportion] | None:
        """The label with the lowest robust accuracy, and that; ties go to the smaller label; None where n is 0."""
        classes = [(int(label), Proportion.of(self.robust[self.label == label])) for label in np.unique(self.label)]
        return min(classes, key=lambda entry: entry[1].estimate, default=None)


_NOBODY = WorstCase(
    np.empty(0, np.str_), np.empty(0, np.int64), np.empty(0, bool), np.empty(0, bool), np.empty(0), complete=False
)


def row_key(cell: CellInfo) -> tuple[str, str, str, str, str]:
    """What the cells of one row share: model, defense, threat model, data and suite."""
    return cell.model, cell.defense, cell.threat, cell.data, cell.suite


def worst_case(results: Sequence[CellResult]) -> WorstCase:
    """The worst case over the cells (attacks and seeds) of one row.

    Randomised models: the attack with the largest `wrong_share` is chosen per sample (the first of equals), and its
    `wrong_share_scored`, from draws that had no part in the choice, gives the verdict: choosing and scoring on the same
    draws would report noise as weakness. Robust is a majority of right draws; a tie is not robust.

    Raises ValueError for an empty list, for cells of different rows, and for repeated sample ids where cells cover
    different samples and must be matched by id. Corruptions have no part in it: of them alone it has no samples.
    """
    if not results:
        raise ValueError("results is empty: the worst case needs at least one cell")
    results = [result for result in results if result.cell.attack_kind != CORRUPTION]
    if not results:
        return _NOBODY
    keys = {row_key(result.cell) for result in results}
    if len(keys) > 1:
        raise ValueError(f"results of {len(keys)} rows are mixed: give the cells of one row, not of {sorted(keys)}")
    matched = _on_common_samples([outcomes(result) for result in results], results)
    first = matched[0]
    robust: npt.NDArray[np.bool_]
    if any(result.cell.randomised for result in results):
        robust, success = _randomised(matched)
    else:
        robust = np.logical_and.reduce([found.robust for found in matched])
        success = (~robust).astype(np.float64)
    complete = all(status(result) == "ok" for result in results)
    return WorstCase(first.id, first.label, first.correct, robust, success, complete)


def _randomised(cells: list[Outcomes]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    chosen = np.stack([found.wrong_share for found in cells]).argmax(0)
    scored = np.stack([found.wrong_share_scored for found in cells])
    correct = np.stack([found.correct for found in cells])
    sample = np.arange(len(chosen))
    success: npt.NDArray[np.float64] = scored[chosen, sample]
    robust: npt.NDArray[np.bool_] = correct[chosen, sample] & majority_right(success)
    return robust, success


def _on_common_samples(cells: list[Outcomes], results: Sequence[CellResult]) -> list[Outcomes]:
    """The same samples in the same order from each cell."""
    first = cells[0]
    if all(np.array_equal(found.id, first.id) for found in cells[1:]):
        return cells
    positions = []
    for found, result in zip(cells, results, strict=True):
        places = {str(name): place for place, name in enumerate(found.id)}
        if len(places) < len(found):
            raise ValueError(
                f"sample ids of cell {result.cell.title!r} repeat, so its samples cannot be matched with those of "
                "another attack: give every sample an id of its own"
            )
        positions.append(places)
    common = [name for name in positions[0] if all(name in places for places in positions[1:])]
    return [
        _take(found, np.array([places[name] for name in common], dtype=np.intp))
        for found, places in zip(cells, positions, strict=True)
    ]


def _take(found: Outcomes, rows: npt.NDArray[np.intp]) -> Outcomes:
    return Outcomes(
        found.id[rows],
        found.label[rows],
        found.correct[rows],
        found.robust[rows],
        found.distance[rows],
        found.wrong_share[rows],
        found.wrong_share_scored[rows],
    )
