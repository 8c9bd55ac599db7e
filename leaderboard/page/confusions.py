"""Which classes the attacks of a row confuse: the whole matrix of few classes, the most frequent pairs of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gauntlet.leaderboard.pictures.confusion import confusion_matrix
from gauntlet.leaderboard.results.record import CellResult

MOST_SQUARE: Final = 12
"""Number of classes up to which the whole matrix is shown."""
MOST_CONFUSIONS: Final = 15


@dataclass(frozen=True)
class Confusion:
    """Labels and predictions under attack."""

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    """Empty for many classes."""
    largest: tuple[tuple[str, str, int, int], ...]
    """Label, wrong prediction, number of samples, and number of samples of the label; the most frequent first."""
    rejects: bool = False
    """Whether the model may reject images: samples whose clean image it rejects are left out."""


def confusions(results: Sequence[CellResult]) -> Confusion:
    """The confusions in the worst case over the cells of one row, with the names of the classes, where they have any.

    Of the matrix of many classes only the pairs are kept. Raises ValueError as `worst_case` does.
    """
    counts = confusion_matrix(results)
    classes = next((result.cell.classes for result in results if result.cell.classes), ())
    names = tuple(classes[place] if place < len(classes) else str(place) for place in range(len(counts)))
    labels, others = np.nonzero(counts * ~np.eye(len(counts), dtype=np.bool_))
    order = np.argsort(-counts[labels, others], kind="stable")[:MOST_CONFUSIONS]
    largest = tuple(
        (names[label], names[other], int(counts[label, other]), int(counts[label].sum()))
        for label, other in zip(labels[order].tolist(), others[order].tolist(), strict=True)
    )
    square = len(counts) <= MOST_SQUARE
    return Confusion(
        names if square else (),
        tuple(tuple(map(int, line)) for line in counts) if square else (),
        largest,
        any(result.cell.rejects for result in results),
    )
