"""Robust accuracy against eps, and against cost, as step functions of per-sample outcomes without interpolation."""

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
_MIN_COST = 0.5
"""Left end of the logarithmic axis of passes, which thus shows the clean accuracy."""


def standing(falls: Numbers, correct: npt.NDArray[np.bool_]) -> tuple[Numbers, npt.NDArray[np.int64]]:
    """The number of samples that stand, as a step function of eps or cost.

    `falls` (N,): the eps or the cost at which each sample is broken, NaN or infinite if it is not; samples that are not
    `correct` when clean never stand. Returns x, which is 0 and then the ascending values at which samples are broken, and
    counts: `counts[i]` samples stand in [x[i], x[i + 1]), and `counts[-1]` after the last x.
    """
    x, times = np.unique(falls[correct & np.isfinite(falls)], return_counts=True)
    counts = np.count_nonzero(correct) - np.cumsum(times)
    return np.concatenate([[0.0], x]), np.concatenate([[np.count_nonzero(correct)], counts]).astype(np.int64)


def minimum_distances(result: CellResult) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    """The distance at which each sample of a minimum-norm cell is broken (NaN if it is not), and whether it is correct clean."""
    samples = cells.outcomes(result)
    return samples.distance, samples.correct


def success_costs(result: CellResult) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    """The passes spent on each sample until it was broken (NaN if it was not), and whether it is correct clean."""
    samples = cells.outcomes(result)
    return np.where(samples.correct & ~samples.robust, _passes(result), np.nan), samples.correct


def _passes(result: CellResult) -> Numbers:
    """Forward and backward passes on each sample."""
    return np.concatenate([block.samples.forwards + block.samples.backwards for block in result.blocks])


def accuracy_against_eps(results: Sequence[CellResult], title: str) -> Figure | None:
    """Robust accuracy at every eps, a line with its 95 % interval for each minimum-norm cell of one row.

    A sample is robust at an eps if its distance is larger. Attacks with a fixed eps are points with intervals. With several
    minimum-norm cells, a further line shows their worst case. None if no minimum-norm cell of the row has samples. Raises
    PicturesMissingError.
    """
    shown = [result for result in results if cells.covered(result)]
    lines = [result for result in shown if result.cell.minimum_norm]
    if not lines:
        return None
    figure = new_figure(9, 5.5)
    axes = figure.add_subplot()
    eps = lines[0].cell.eps
    curves = [minimum_distances(result) for result in lines]
    finite = np.concatenate([distance[np.isfinite(distance)] for distance, _ in curves])
    end = max(1.05 * float(finite.max(initial=0.0)), 1.5 * eps)
    for number, (result, (distance, correct)) in enumerate(zip(lines, curves, strict=True)):
        _steps(axes, distance, correct, end, _name(result, results), number)
    entries = len(shown)
    same_samples = all(np.array_equal(cells.outcomes(one).id, cells.outcomes(lines[0]).id) for one in lines)
    if len(lines) > 1 and same_samples:
        nearest = np.min([np.where(np.isnan(distance), np.inf, distance) for distance, _ in curves], axis=0)
        _steps(axes, nearest, curves[0][1], end, "worst case of these", _WORST, band=False)
        entries += 1
    points = [result for result in shown if not result.cell.minimum_norm]
    for number, result in enumerate(points, start=len(lines)):
        draw_point(axes, eps, cells.robust_accuracy(result), _name(result, results), number)
    axes.axvline(eps, color="#666666", linewidth=1, linestyle=(0, (1, 3)))
    axes.text(eps, 101, f" eps {eps:.4g}", fontsize=8, color="#444444", va="top")
    axes.set_xlim(0, end)
    axes.set_xlabel(f"eps ({lines[0].cell.norm})")
    accuracy_axis(axes)
    axes.set_title(heading(f"{title}\nn {cells.covered(lines[0])}, bands and bars: 95 % intervals"), fontsize=10)
    legend(axes, entries)
    return figure


def accuracy_against_cost(results: Sequence[CellResult], title: str) -> Figure | None:
    """The share of all samples that stand after a number of passes each, a line for each cell of one row.

    Passes are the forward and backward passes on the sample until it is broken, means over a batch for attacks of other
    libraries. A marker ends each line at the largest number of passes on any sample. Minimum-norm attacks do not stop at a
    success: their lines fall at the end only. None if no cell has samples. Raises PicturesMissingError.
    """
    shown = [result for result in results if cells.covered(result)]
    if not shown:
        return None
    figure = new_figure(9, 5.5)
    axes = figure.add_subplot()
    most = [float(_passes(result).max(initial=0.0)) for result in shown]
    end = max(2.0, 1.1 * max(most))
    for number, (result, passes) in enumerate(zip(shown, most, strict=True)):
        falls, correct = success_costs(result)
        last = max(1.0, passes)
        name = _name(result, results) + (" (minimum-norm: never stops early)" if result.cell.minimum_norm else "")
        _steps(axes, falls, correct, last, name, number, start=_MIN_COST, band=False)
        final = 100 * cells.robust_accuracy(result).estimate
        axes.plot([last], [final], color=style(number)["color"], marker=style(number)["marker"], markersize=5)
    axes.set_xscale("log")
    axes.set_xlim(_MIN_COST, end)
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
    x[0] = start
    draw_steps(axes, x, counts, len(correct), end, name, number, band=band)


def draw_steps(
    axes: Axes,
    x: Numbers,
    counts: npt.NDArray[np.int64],
    n: int,
    end: float,
    name: str,
    number: int,
    *,
    band: bool = True,
) -> None:
    """Draw `counts` of `n` samples, as `standing` gives them, in percent to the place `end`, with their 95 % intervals."""
    x, counts = np.append(x, max(end, float(x[-1]))), np.append(counts, counts[-1])
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


def draw_point(axes: Axes, eps: float, accuracy: Proportion, name: str, number: int) -> None:
    """Draw an accuracy at an eps in percent, with its 95 % interval; without a name it is not in the legend."""
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
        label=plain(name) if name else None,
    )


def _name(result: CellResult, results: Sequence[CellResult]) -> str:
    """The attack, with its seed if several seeds of it are shown."""
    seeds = sum(other.cell.attack == result.cell.attack for other in results)
    name = shorten(result.cell.attack, _LONGEST)
    return f"{name}, seed {result.cell.seed}" if seeds > 1 else name
