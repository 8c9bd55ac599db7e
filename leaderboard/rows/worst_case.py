"""The worst case over the attacks of one row: a sample is robust only if no attack broke it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.results.cell_summary import majority_right
from gauntlet.leaderboard.results.record import CellInfo, CellResult
from gauntlet.leaderboard.results.sample_set import SampleSet, numbered, sample_set
from gauntlet.leaderboard.results.summary import AnyResult, CellSummary, summaries
from gauntlet.leaderboard.stats.proportions import Proportion

R = TypeVar("R", CellResult, CellSummary)


@dataclass(frozen=True, eq=False)
class WorstCase:
    """Per-sample outcomes against all attacks of a row, arrays of length n. Corruptions are not attacks.

    The samples are those that every deciding cell of the row covered, in the order of the first cell. Samples that some attack
    has not covered count in neither the numerator nor the denominator. If an attack failed before its first block, n is 0.
    """

    samples: SampleSet
    correct: npt.NDArray[np.bool_]
    """Classified correctly when clean."""
    robust: npt.NDArray[np.bool_]
    success: npt.NDArray[np.float64]
    """Share of the scoring draws in which the worst example is misclassified: 0 or 1 for a deterministic model. An estimate
    of the probability, from `record.DRAWS` draws."""
    complete: bool
    """Whether every cell of the row finished; if not, the accuracy must not be compared with others."""

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def id(self) -> npt.NDArray[np.str_]:
        """The samples' ids."""
        return self.samples.id

    @property
    def label(self) -> npt.NDArray[np.int64]:
        """The samples' labels."""
        return self.samples.label

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
    SampleSet(np.empty(0, np.str_), np.empty(0, np.int64)),
    np.empty(0, bool),
    np.empty(0, bool),
    np.empty(0),
    complete=False,
)


def row_key(cell: CellInfo) -> tuple[str, str, str, str, str]:
    """Model, defense, threat model, data and suite: cells with the same key belong to the same row."""
    return cell.model, cell.defense, cell.threat, cell.data, cell.suite


def deciding(results: Sequence[R]) -> list[R]:
    """The cells that the worst case is made of: no corruptions, nor, beside attacks, certificates that failed or are not
    finished, without which the figures of the attacks stand."""
    attacked = [result for result in results if not result.cell.corrupts]
    if all(result.cell.proves for result in attacked):
        return attacked
    return [result for result in attacked if not result.cell.proves or summaries([result])[0].status == "ok"]


def worst_case(results: Sequence[AnyResult]) -> WorstCase:
    """The worst case over the cells (attacks and seeds) of one row.

    For randomised models the attack with the largest `wrong_share` is chosen per sample (the first of equals), and its
    `wrong_share_scored`, from draws that had no part in the choice, decides: choosing and scoring on the same draws would
    report noise as weakness. Robust means that most draws are correct; a tie is not robust.

    Only the `deciding` cells count; if there are none, the worst case has no samples. Raises ValueError for an empty list,
    for cells of different rows, and for repeated sample ids if cells cover different samples and must be matched by id.
    """
    if not results:
        raise ValueError("results is empty: the worst case needs at least one cell")
    cells = deciding(summaries(results))
    if not cells:
        return _EMPTY
    keys = {row_key(result.cell) for result in cells}
    if len(keys) > 1:
        raise ValueError(f"results of {len(keys)} rows are mixed: give the cells of one row, not of {sorted(keys)}")
    samples, places = _common_samples(cells)
    correct = np.stack([cell.correct[place] for cell, place in zip(cells, places, strict=True)])
    robust: npt.NDArray[np.bool_]
    if any(cell.cell.randomised for cell in cells):
        chosen = np.stack([cell.wrong_shares[place] for cell, place in zip(cells, places, strict=True)]).argmax(0)
        scored = np.stack([cell.wrong_shares_scored[place] for cell, place in zip(cells, places, strict=True)])
        sample = np.arange(len(chosen))
        success = scored[chosen, sample]
        robust = correct[chosen, sample] & majority_right(success)
    else:
        robust = np.logical_and.reduce([cell.robust[place] for cell, place in zip(cells, places, strict=True)])
        success = (~robust).astype(np.float64)
    return WorstCase(samples, correct[0], robust, success, all(cell.status == "ok" for cell in cells))


Places = slice | npt.NDArray[np.intp]


def _common_samples(cells: Sequence[CellSummary]) -> tuple[SampleSet, list[Places]]:
    """The samples that all cells cover, in the order of the first, and where each cell has them."""
    first = cells[0].samples
    if all(cell.samples is first or np.array_equal(cell.samples.id, first.id) for cell in cells):
        return first, [slice(None)] * len(cells)
    for cell in cells:
        if not cell.samples.unique:
            raise ValueError(
                f"sample ids of cell {cell.cell.title!r} repeat, so its samples cannot be matched with those of "
                "another attack: give every sample an id of its own"
            )
    count, numbers = numbered([cell.samples for cell in cells])
    places = np.full((len(cells), count), -1, dtype=np.intp)
    for row, number in zip(places, numbers, strict=True):
        row[number] = np.arange(len(number))
    common = numbers[0][(places[:, numbers[0]] >= 0).all(axis=0)]
    own = list(places[:, common])
    return sample_set(first.id[own[0]], first.label[own[0]]), [*own]
