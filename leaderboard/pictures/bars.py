"""Accuracies as horizontal bars with their 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gauntlet.leaderboard.pictures.canvas import COLOURS, heading, new_figure, plain
from gauntlet.leaderboard.results.escape import shorten
from gauntlet.leaderboard.stats.proportions import Proportion

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST = 40


def accuracy_bars(accuracies: Sequence[tuple[str, Proportion]], title: str) -> Figure:
    """A bar for each named accuracy, from top to bottom, labelled with its percentage.

    Raises PicturesMissingError if matplotlib is not installed.
    """
    figure = new_figure(7, 1.4 + 0.4 * len(accuracies))
    axes = figure.subplots()
    places = range(len(accuracies))
    shares = [100 * accuracy.estimate for _, accuracy in accuracies]
    ends = [[100 * end for end in accuracy.interval] for _, accuracy in accuracies]
    errors = [
        [share - low for share, (low, _) in zip(shares, ends, strict=True)],
        [high - share for share, (_, high) in zip(shares, ends, strict=True)],
    ]
    axes.barh(places, shares, xerr=errors, color=COLOURS[5], ecolor="#333333", capsize=3)
    axes.set_yticks(list(places), [plain(shorten(name, _LONGEST)) for name, _ in accuracies])
    axes.invert_yaxis()
    axes.set_xlim(0, 118)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("accuracy (%), with 95 % intervals")
    for place, share, (_, high) in zip(places, shares, ends, strict=True):
        axes.annotate(f"{share:.1f}", (high, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(heading(title, 70), fontsize=10)
    return figure
