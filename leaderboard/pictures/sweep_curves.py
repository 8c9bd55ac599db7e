"""Robust accuracy against an attack's setting, and against the passes that each setting costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gauntlet.leaderboard.pictures.canvas import accuracy_axis, heading, legend, new_figure, plain, style
from gauntlet.leaderboard.stats.proportions import Proportion

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOGARITHMIC_FROM = 8
"""A range of values at least as wide as this factor is drawn on a logarithmic axis."""
_MOST_LEVEL_TICKS = 8
"""With more ticks than this, labels are rotated."""


@dataclass(frozen=True)
class SweepPoint:
    """One setting: its value on the axis, its robust accuracy, and its forward and backward passes per sample."""

    value: float | str
    accuracy: Proportion
    passes: float


def accuracy_against_setting(
    series: Mapping[str, Sequence[SweepPoint]], axis: str, title: str, *, joined: bool
) -> Figure:
    """Left: robust accuracy with its 95 % interval against the setting; right: against passes per sample.

    `series`: points in ascending order, by the name of the series (empty for a single one); values that are words are drawn at
    equal distances. `joined`: points are joined by a thin line, and the vertical axis shows the range of the intervals, as
    suits a budget; between values of eps nothing is known, so that no line is drawn. Raises PicturesMissingError.
    """
    figure = new_figure(12, 5.2)
    from matplotlib.ticker import LogLocator

    left, right = figure.subplots(1, 2, sharey=True)
    values = list(dict.fromkeys(point.value for points in series.values() for point in points))
    words = any(isinstance(value, str) for value in values)
    places = {value: float(at if words else value) for at, value in enumerate(values)}
    for number, (name, points) in enumerate(series.items()):
        look = {**style(number), **({} if joined else {"linestyle": "none"})}
        _draw(left, [places[point.value] for point in points], points, name, look)
        _draw(right, [point.passes for point in points], points, name, {**look, "linestyle": "none"})
        for point in points if len(series) == 1 else ():
            right.annotate(
                plain(_text(point.value)),
                (point.passes, 100 * point.accuracy.estimate),
                xytext=(6, 4),
                textcoords="offset points",
                fontsize=8,
            )
    low = min(places.values())
    if not words and low > 0 and max(places.values()) >= _LOGARITHMIC_FROM * low:
        left.set_xscale("log", base=2)
    left.set_xticks(sorted(places.values()), [plain(_text(value)) for value in sorted(values, key=lambda v: places[v])])
    left.minorticks_off()
    left.set_xlabel(plain(axis))
    right.set_xscale("log")
    right.set_xlabel("forward + backward passes per sample")
    for axes in (left, right):
        accuracy_axis(axes)
        axes.xaxis.set_tick_params(labelrotation=0 if len(values) <= _MOST_LEVEL_TICKS else 45)
    right.set_ylabel("")
    right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.xaxis.set_major_formatter("{x:g}")
    right.minorticks_off()
    if joined:
        # The last points that a larger budget gains are small.
        bounds = [100 * bound for points in series.values() for point in points for bound in point.accuracy.interval]
        left.set_ylim(max(-2, min(bounds) - 2), min(102, max(bounds) + 2))
    if any(series):
        legend(right, len(series) + 6)
    figure.suptitle(heading(title, 120), fontsize=10)
    return figure


def _draw(axes: Axes, x: Sequence[float], points: Sequence[SweepPoint], name: str, look: Mapping[str, str]) -> None:
    shares = [100 * point.accuracy.estimate for point in points]
    intervals = [point.accuracy.interval for point in points]
    below = [share - 100 * low for share, (low, _) in zip(shares, intervals, strict=True)]
    above = [100 * high - share for share, (_, high) in zip(shares, intervals, strict=True)]
    axes.errorbar(
        x,
        shares,
        yerr=[below, above],
        color=look["color"],
        marker=look["marker"],
        linestyle=look["linestyle"],
        markersize=5,
        linewidth=1,
        capsize=3,
        label=plain(name),
    )


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
