"""The confusion matrix under attack: label × prediction in the worst case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.pictures.canvas import heading, new_figure
from gauntlet.leaderboard.results.record import CellResult
from gauntlet.leaderboard.rows.closest_examples import closest_examples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ANNOTATED = 12
"""Counts are written into the cells for up to this many classes."""
_TICKS = 25


def confusion_matrix(results: Sequence[CellResult]) -> npt.NDArray[np.int64]:
    """Counts (K, K): label × prediction in the worst case over the cells of one row.

    A sample that no attack broke counts under its clean prediction; a sample whose clean image the model rejects has none and is
    left out. K is the largest label or prediction, plus 1.
    """
    examples = closest_examples(results)
    classes = 1 + int(max(examples.label.max(initial=0), examples.prediction.max(initial=0)))
    counts = np.zeros((classes, classes), dtype=np.int64)
    taken = examples.prediction >= 0
    np.add.at(counts, (examples.label[taken], examples.prediction[taken]), 1)
    return counts


def confusion_figure(results: Sequence[CellResult], title: str) -> Figure:
    """The matrix of `confusion_matrix`: colour is the share of the label's samples, with counts if they fit.

    Raises PicturesMissingError, and ValueError as `worst_case` does.
    """
    figure = new_figure(9, 8)
    from matplotlib.patches import Rectangle

    counts = confusion_matrix(results)
    n = counts.sum(1, keepdims=True)
    shares = np.divide(100 * counts, n, out=np.zeros(counts.shape), where=n > 0)
    classes = len(counts)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    every = max(1, -(-classes // _TICKS))
    axes.set_xticks(range(0, classes, every))
    axes.set_yticks(
        range(0, classes, every), [f"{label}  (n {int(n[label, 0])})" for label in range(0, classes, every)]
    )
    left_out = " (rejected clean images are left out)" if any(result.cell.rejects for result in results) else ""
    axes.set_xlabel(f"prediction under attack{left_out}")
    axes.set_ylabel("label")
    axes.set_title(heading(title), fontsize=10)
    # Correct predictions are on the diagonal.
    for label in range(classes):
        axes.add_patch(Rectangle((label - 0.5, label - 0.5), 1, 1, fill=False, edgecolor="#555555", linewidth=0.8))
    if classes <= _ANNOTATED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            axes.text(
                column,
                row,
                f"{counts[row, column]}\n{shares[row, column]:.0f} %",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if shares[row, column] > 55 else "black",
            )
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the label's samples (%)")
    return figure
