"""The worst case over the attacks of a row, sample by sample."""

from __future__ import annotations

import numpy as np

from gauntlet.leaderboard.results.cell_summary import SampleOutcomes, majority_right, outcomes, status
from gauntlet.leaderboard.results.sample_set import SampleSet
from gauntlet.leaderboard.rows.worst_case import WorstCase

_EMPTY = WorstCase(
    SampleSet(np.empty(0, np.str_), np.empty(0, np.int64)),
    np.empty(0, bool),
    np.empty(0, bool),
    np.empty(0),
    complete=False,
)


def row_key(cell):
    """Model, defense, threat model, data and suite: cells with the same key belong to the same row."""
    return cell.model, cell.defense, cell.threat, cell.data, cell.suite


def deciding(results):
    """The cells that the worst case is made of: no corruptions, nor, beside attacks, certificates that failed or are not
    finished, without which the figures of the attacks stand."""
    attacked = [result for result in results if not result.cell.corrupts]
    if all(result.cell.proves for result in attacked):
        return attacked
    return [result for result in attacked if not result.cell.proves or status(result) == "ok"]


def worst_case(results):
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
    if any(result.cell.randomised for result in results):
        robust, success = _randomised(matched)
    else:
        robust = np.logical_and.reduce([cell.robust for cell in matched])
        success = (~robust).astype(np.float64)
    complete = all(status(result) == "ok" for result in results)
    return WorstCase(SampleSet(first.id, first.label), first.correct, robust, success, complete)


def _randomised(cells):
    chosen = np.stack([cell.wrong_share for cell in cells]).argmax(0)
    scored = np.stack([cell.wrong_share_scored for cell in cells])
    correct = np.stack([cell.correct for cell in cells])
    sample = np.arange(len(chosen))
    success = scored[chosen, sample]
    robust = correct[chosen, sample] & majority_right(success)
    return robust, success


def _on_common_samples(cells, results):
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


def _take(cell, indices):
    return SampleOutcomes(
        cell.id[indices],
        cell.label[indices],
        cell.correct[indices],
        cell.robust[indices],
        cell.distance[indices],
        cell.wrong_share[indices],
        cell.wrong_share_scored[indices],
    )
