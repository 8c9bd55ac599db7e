"""Robust accuracy against an attack's setting, and against what each setting costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gauntlet.leaderboard.pictures.canvas import accuracy_axis, heading, legend, new_figure, plain, style
from gauntlet.leaderboard.stats.proportions import Proportion

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE = 8
"""A range of values as wide as this factor is drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Mark:
    """One setting: its value on the axis, what it gave, and its forward and backward passes a sample."""

    value: float | str
    accuracy: Proportion
    passes: float


def settings(series: Mapping[str, Sequence[Mark]], axis: str, title: str, *, joined: bool) -> Figure:
    """Left: robust accuracy with its 95 % interval against the setting; right: against passes a sample.

    `series`: marks by what is held in them (an empty text where nothing is), in ascending order; words are drawn at equal
    distances. `joined`: along a budget, a thin line guides the eye, and the vertical axis shows the range of the intervals;
    between values of eps nothing is known, and no line is drawn. Raises PicturesMissingError.
    """
    figure = new_figure(12, 5.2)
    from matplotlib.ticker import LogLocator

    left, right = figure.subplots(1, 2, sharey=True)
    values = list(dict.fromkeys(mark.value for marks in series.values() for mark in marks))
    words = any(isinstance(value, str) for value in values)
    places = {value: float(at if words else value) for at, value in enumerate(values)}
    for number, (name, marks) in enumerate(series.items()):
        look = {**style(number), **({} if joined else {"linestyle": "none"})}
        _draw(left, [places[mark.value] for mark in marks], marks, name, look)
        _draw(right, [mark.passes for mark in marks], marks, name, {**look, "linestyle": "none"})
        for mark in marks if len(series) == 1 else ():
            right.annotate(
                plain(_text(mark.value)),
                (mark.passes, 100 * mark.accuracy.estimate),
                xytext=(6, 4),
                textcoords="offset points",
                fontsize=8,
            )
    low = min(places.values())
    if not words and low > 0 and max(places.values()) >= _WIDE * low:
        left.set_xscale("log", base=2)
    left.set_xticks(sorted(places.values()), [plain(_text(value)) for value in sorted(values, key=lambda v: places[v])])
    left.minorticks_off()
    left.set_xlabel(plain(axis))
    right.set_xscale("log")
    right.set_xlabel("forward + backward passes a sample")
    for axes in (left, right):
        accuracy_axis(axes)
        axes.xaxis.set_tick_params(labelrotation=0 if len(values) <= _WIDE else 45)
    right.set_ylabel("")
    right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.xaxis.set_major_formatter("{x:g}")
    right.minorticks_off()
    if joined:
        # What is looked for is small: the last points that a larger budget gains.
        bounds = [100 * bound for marks in series.values() for mark in marks for bound in mark.accuracy.interval]
        left.set_ylim(max(-2, min(bounds) - 2), min(102, max(bounds) + 2))
    if any(series):
        legend(right, len(series) + 6)
    figure.suptitle(heading(title, 120), fontsize=10)
    return figure


def _draw(axes: Axes, x: Sequence[float], marks: Sequence[Mark], name: str, look: Mapping[str, str]) -> None:
    shares = [100 * mark.accuracy.estimate for mark in marks]
    intervals = [mark.accuracy.interval for mark in marks]
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
