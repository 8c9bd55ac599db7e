"""The worst case over the attacks of one row: a sample is robust only if no attack broke it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.results.cell_summary import SampleOutcomes, majority_right, outcomes, status
from gauntlet.leaderboard.results.record import CellInfo, CellResult
from gauntlet.leaderboard.stats.proportions import Proportion


@dataclass(frozen=True, eq=False)
class WorstCase:
    """Per-sample outcomes against all attacks of a row, arrays of length n. Corruptions are not attacks.

    The samples are those that every deciding cell of the row covered, in the order of the first cell. Samples that some attack
    has not covered count in neither the numerator nor the denominator. If an attack failed before its first block, n is 0.
    """

    id: npt.NDArray[np.str_]
    label: npt.NDArray[np.int64]
    correct: npt.NDArray[np.bool_]
    """Classified correctly when clean."""
    robust: npt.NDArray[np.bool_]
    success: npt.NDArray[np.float64]
    """Share of the scoring draws in which the worst example is misclassified: 0 or 1 for a deterministic model. An estimate
    of the probability, from `record.DRAWS` draws."""
    complete: bool
    """Whether every cell of the row finished; if not, the accuracy must not be compared with others."""

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
        """The label with the lowest robust accuracy, and that accuracy; ties go to the smaller label; None if n is 0."""
        classes = [(int(label), Proportion.of(self.robust[self.label == label])) for label in np.unique(self.label)]
        return min(classes, key=lambda entry: entry[1].estimate, default=None)


_EMPTY = WorstCase(
    np.empty(0, np.str_), np.empty(0, np.int64), np.empty(0, bool), np.empty(0, bool), np.empty(0), complete=False
)


def row_key(cell: CellInfo) -> tuple[str, str, str, str, str]:
    """Model, defense, threat model, data and suite: cells with the same key belong to the same row."""
    return cell.model, cell.defense, cell.threat, cell.data, cell.suite


def deciding(results: Sequence[CellResult]) -> list[CellResult]:
    """The cells that the worst case is made of: no corruptions, nor, beside attacks, certificates that failed or are not
    finished, without which the figures of the attacks stand."""
    attacked = [result for result in results if not result.cell.corrupts]
    if all(result.cell.proves for result in attacked):
        return attacked
    return [result for result in attacked if not result.cell.proves or status(result) == "ok"]


def worst_case(results: Sequence[CellResult]) -> WorstCase:
    """The worst case over the cells (attacks and seeds) of one row.

    For randomised models the attack with the largest `wrong_share` is chosen per sample (the first of equals), and its
    `wrong_share_scored`, from draws that had no part in the choice, decides: choosing and scoring on the same draws would
    report noise as weakness. Robust means that most draws are correct; a tie is not robust.

    Only the `deciding` cells count; if there are none, the worst case has no samples. Raises ValueError for an empty list,
    for cells of different rows, and for repeated sample ids if cells cover different samples and must be matched by id.
    """
    if not results:
        raise ValueError("results is empty: the worst case needs at least one cell")
    results = deciding(results)
    if not results:
        return _EMPTY
    keys = {row_key(result.cell) for result in results}
    if len(keys) > 1:
        raise ValueError(f"results of {len(keys)} rows are mixed: give the cells of one row, not of {sorted(keys)}")
    matched = _on_common_samples([outcomes(result) for result in results], results)
    first = matched[0]
    robust: npt.NDArray[np.bool_]
    if any(result.cell.randomised for result in results):
        robust, success = _randomised(matched)
    else:
        robust = np.logical_and.reduce([cell.robust for cell in matched])
        success = (~robust).astype(np.float64)
    complete = all(status(result) == "ok" for result in results)
    return WorstCase(first.id, first.label, first.correct, robust, success, complete)


def _randomised(cells: Sequence[SampleOutcomes]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    chosen = np.stack([cell.wrong_share for cell in cells]).argmax(0)
    scored = np.stack([cell.wrong_share_scored for cell in cells])
    correct = np.stack([cell.correct for cell in cells])
    sample = np.arange(len(chosen))
    success: npt.NDArray[np.float64] = scored[chosen, sample]
    robust: npt.NDArray[np.bool_] = correct[chosen, sample] & majority_right(success)
    return robust, success


def _on_common_samples(cells: list[SampleOutcomes], results: Sequence[CellResult]) -> list[SampleOutcomes]:
    """The same samples in the same order from each cell."""
    first = cells[0]
    if all(np.array_equal(cell.id, first.id) for cell in cells[1:]):
        return cells
    positions = []
    for cell, result in zip(cells, results, strict=True):
        places = {str(name): place for place, name in enumerate(cell.id)}
        if len(places) < len(cell):
            raise ValueError(
                f"sample ids of cell {result.cell.title!r} repeat, so its samples cannot be matched with those of "
                "another attack: give every sample an id of its own"
            )
        positions.append(places)
    common = [name for name in positions[0] if all(name in places for places in positions[1:])]
    return [
        _take(cell, np.array([places[name] for name in common], dtype=np.intp))
        for cell, places in zip(cells, positions, strict=True)
    ]


def _take(cell: SampleOutcomes, indices: npt.NDArray[np.intp]) -> SampleOutcomes:
    return SampleOutcomes(
        cell.id[indices],
        cell.label[indices],
        cell.correct[indices],
        cell.robust[indices],
        cell.distance[indices],
        cell.wrong_share[indices],
        cell.wrong_share_scored[indices],
    )
