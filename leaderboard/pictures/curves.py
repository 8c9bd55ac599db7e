"""Robust accuracy against eps, and against cost: step functions of per-sample outcomes, never interpolated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.pictures.canvas import COLOURS, accuracy_axis, heading, legend, new_figure, plain, style
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.escape import shorten
from gauntlet.leaderboard.results.record import CellResult
from gauntlet.leaderboard.stats.proportions import Proportion

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = npt.NDArray[np.float64]

_LONGEST = 40
_WORST = COLOURS.index("#000000")
_LEAST_COST = 0.5
"""Left of the first pass, so that a logarithmic axis shows who was right clean."""


def standing(falls: Numbers, correct: npt.NDArray[np.bool_]) -> tuple[Numbers, npt.NDArray[np.int64]]:
    """Where samples fall, and how many stand from there on.

    `falls` (N,): the eps or the cost at which each sample is broken, NaN or infinite where it never is; samples that are
    not `correct` when clean never stand. Returns x, 0 first and then ascending, and counts: `counts[i]` samples stand for
    every value in [x[i], x[i + 1]), after the last x for all that follow.
    """
    found = np.sort(falls[correct & np.isfinite(falls)])
    x, times = np.unique(found, return_counts=True)
    counts = np.count_nonzero(correct) - np.cumsum(times)
    return np.concatenate([[0.0], x]), np.concatenate([[np.count_nonzero(correct)], counts]).astype(np.int64)


def minimum_distances(result: CellResult) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    """Of a minimum-norm cell, the distance at which each sample is broken (NaN: none found), and who is right clean."""
    found = cells.outcomes(result)
    return found.distance, found.correct


def success_costs(result: CellResult) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    """Forward and backward passes that each sample had cost when it was broken (NaN: never), and who is right clean."""
    found = cells.outcomes(result)
    spent = np.concatenate([block.samples.forwards + block.samples.backwards for block in result.blocks])
    return np.where(found.correct & ~found.robust, spent, np.nan), found.correct


def against_eps(results: Sequence[CellResult], title: str) -> Figure | None:
    """Robust accuracy at every eps, a line for each minimum-norm cell of one row with its 95 % interval.

    At an eps, a sample is robust if its distance is larger. Attacks with a fixed eps are points with intervals. Several
    minimum-norm cells also have the line of their worst case. None where the row has no minimum-norm cell with samples.
    Raises PicturesMissingError.
    """
    shown = [one for one in results if cells.covered(one)]
    lines = [one for one in shown if one.cell.minimum_norm]
    if not lines:
        return None
    figure = new_figure(9, 5.5)
    axes = figure.add_subplot()
    eps = lines[0].cell.eps
    parts = [minimum_distances(one) for one in lines]
    finite = np.concatenate([distance[np.isfinite(distance)] for distance, _ in parts])
    end = max(1.05 * float(finite.max(initial=0.0)), 1.5 * eps)
    for number, (one, (distance, correct)) in enumerate(zip(lines, parts, strict=True)):
        _steps(axes, distance, correct, end, _name(one, results), number)
    entries = len(shown)
    alike = all(np.array_equal(cells.outcomes(one).id, cells.outcomes(lines[0]).id) for one in lines)
    if len(lines) > 1 and alike:
        nearest = np.min([np.where(np.isnan(distance), np.inf, distance) for distance, _ in parts], axis=0)
        _steps(axes, nearest, parts[0][1], end, "worst case of these", _WORST, band=False)
        entries += 1
    for number, one in enumerate((one for one in shown if not one.cell.minimum_norm), start=len(lines)):
        _point(axes, eps, cells.robust_accuracy(one), _name(one, results), number)
    axes.axvline(eps, color="#666666", linewidth=1, linestyle=(0, (1, 3)))
    axes.text(eps, 101, f" eps {eps:.4g}", fontsize=8, color="#444444", va="top")
    axes.set_xlim(0, end)
    axes.set_xlabel(f"eps ({lines[0].cell.norm})")
    accuracy_axis(axes)
    axes.set_title(heading(f"{title}\nn {cells.covered(lines[0])}, bands and bars: 95 % intervals"), fontsize=10)
    legend(axes, entries)
    return figure


def against_cost(results: Sequence[CellResult], title: str) -> Figure | None:
    """Share of all samples still standing after so many passes each, a line for each cell of one row.

    Passes are forward and backward ones on that sample until its success, means over a batch for whole attacks of other
    libraries; a marker ends each line at the most that the attack spent on any sample. Minimum-norm attacks do not stop at
    a success, and fall at the end only. None where no cell has samples. Raises PicturesMissingError.
    """
    shown = [one for one in results if cells.covered(one)]
    if not shown:
        return None
    figure = new_figure(9, 5.5)
    axes = figure.add_subplot()
    spent = [np.concatenate([b.samples.forwards + b.samples.backwards for b in one.blocks]) for one in shown]
    end = max(2.0, 1.1 * max(float(one.max(initial=0.0)) for one in spent))
    for number, (one, passes) in enumerate(zip(shown, spent, strict=True)):
        falls, correct = success_costs(one)
        last = max(1.0, float(passes.max(initial=0.0)))
        name = _name(one, results) + (" (minimum-norm: never stops early)" if one.cell.minimum_norm else "")
        _steps(axes, falls, correct, last, name, number, start=_LEAST_COST, band=False)
        final = 100 * cells.robust_accuracy(one).estimate
        axes.plot([last], [final], color=style(number)["color"], marker=style(number)["marker"], markersize=5)
    axes.set_xscale("log")
    axes.set_xlim(_LEAST_COST, end)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("forward + backward passes on a sample until it is broken")
    accuracy_axis(axes, "still standing (%)")
    axes.set_title(heading(f"{title}\nn {cells.covered(shown[0])}"), fontsize=10)
    legend(axes, len(shown))
    return figure


def _steps(
    axes: Axes,
    falls: Numbers,
    correct: npt.NDArray[np.bool_],
    end: float,
    name: str,
    number: int,
    *,
    start: float = 0.0,
    band: bool = True,
) -> None:
    x, counts = standing(falls, correct)
    n = len(correct)
    x, counts = np.append(x, max(end, float(x[-1]))), np.append(counts, counts[-1])
    x[0] = start
    look = style(number)
    axes.plot(
        x,
        100 * counts / n,
        drawstyle="steps-post",
        color=look["color"],
        linestyle=look["linestyle"],
        linewidth=1.6,
        label=plain(name),
    )
    if band:
        intervals = np.array([Proportion(int(count), n).interval for count in counts])
        low, high = 100 * intervals.T
        axes.fill_between(x, low, high, step="post", color=look["color"], alpha=0.12, linewidth=0)


def _point(axes: Axes, eps: float, accuracy: Proportion, name: str, number: int) -> None:
    low, high = accuracy.interval
    share, look = 100 * accuracy.estimate, style(number)
    axes.errorbar(
        [eps],
        [share],
        yerr=[[share - 100 * low], [100 * high - share]],
        color=look["color"],
        marker=look["marker"],
        markersize=5,
        linestyle="none",
        capsize=3,
        label=plain(name),
    )


def _name(result: CellResult, results: Sequence[CellResult]) -> str:
    """The attack, with its seed where several seeds of it are shown."""
    twins = sum(one.cell.attack == result.cell.attack for one in results)
    name = shorten(result.cell.attack, _LONGEST)
    return f"{name}, seed {result.cell.seed}" if twins > 1 else name
