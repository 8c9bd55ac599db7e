"""Robust accuracy against eps of several models in one picture, and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from gauntlet.leaderboard.pictures.canvas import accuracy_axis, heading, legend, new_figure
from gauntlet.leaderboard.pictures.curves import draw_point, draw_steps
from gauntlet.leaderboard.report.csv_writer import COUNT, NUMBER, TEXT, accuracy_columns, typed_frame
from gauntlet.leaderboard.results.escape import shorten
from gauntlet.leaderboard.stats.proportions import Proportion

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE_DTYPES: Final = {
    "model": TEXT,
    "defense": TEXT,
    "norm": TEXT,
    "data": TEXT,
    "suite": TEXT,
    "folder": TEXT,
    "source": TEXT,
    "eps": NUMBER,
    "standing": COUNT,
    "n": COUNT,
    "robust_accuracy": NUMBER,
    "robust_low": NUMBER,
    "robust_high": NUMBER,
}
"""Columns of the table, in order."""
_LONGEST: Final = 50


@dataclass(frozen=True)
class EpsSeries:
    """A model behind a defense: its accuracy at ascending eps, from 0 on."""

    model: str
    defense: str
    norm: str
    data: str
    suite: str
    folder: str
    source: str
    """The minimum-norm attacks, or `radii` for the worst case over the attacks at each radius."""
    exact: bool
    """Whether the accuracy holds up to the next eps, as that of minimum-norm attacks does; else nothing is known between."""
    points: tuple[tuple[float, Proportion], ...]
    missing: int = 0
    """Number of samples that were asked for and that some attack of the rows has not covered."""
    blocks: tuple[str, ...] = ()
    """Names of the flags that block the rank of a row: what is drawn may be too high."""

    @property
    def title(self) -> str:
        """Model and defense."""
        return self.model if self.defense == "none" else f"{self.model} × {self.defense}"


def series_frame(series: Sequence[EpsSeries]) -> pd.DataFrame:
    """A line for each series and eps; of exact ones, the eps at which their accuracy falls."""
    lines = [
        {
            **{name: getattr(one, name) for name in ("model", "defense", "norm", "data", "suite", "folder", "source")},
            "eps": eps,
            "standing": share.successes,
            "n": share.n,
            **accuracy_columns("robust", share.estimate, share.interval),
        }
        for one in series
        for eps, share in one.points
    ]
    return typed_frame(lines, CURVE_DTYPES)


def series_figure(series: Sequence[EpsSeries], title: str) -> Figure:
    """Exact series as steps with their 95 % bands, others as points with their 95 % intervals and nothing between them.

    A model has the same colour in all its series. Raises PicturesMissingError.
    """
    figure = new_figure(9, 5.5)
    axes = figure.add_subplot()
    radii = [eps for one in series if not one.exact for eps, _ in one.points]
    ends = [1.1 * max(radii, default=0.0)]
    for one in series:
        if one.exact:
            eps = [at for at, _ in one.points]
            ends.append(1.05 * eps[int(0.98 * (len(eps) - 1))])
    end = max([*ends, 1e-9])
    names = list(dict.fromkeys((one.folder, one.title) for one in series))
    several = len({one.folder for one in series}) > 1
    named: set[int] = set()
    for one in series:
        number = names.index((one.folder, one.title))
        place = f" ({one.folder})" if several else ""
        name = (
            shorten(f"{one.title}{place}", _LONGEST)
            + (" (no rank)" if one.blocks else "")
            + (f", {one.source}" if one.exact else "")
        )
        if one.exact:
            x = np.array([eps for eps, _ in one.points])
            counts = np.array([share.successes for _, share in one.points], dtype=np.int64)
            draw_steps(axes, x, counts, one.points[0][1].n, end, name, number)
            named.add(number)
            continue
        for eps_at, share in one.points:
            draw_point(axes, eps_at, share, "" if number in named else name, number)
            named.add(number)
    axes.set_xlim(-0.01 * end, end)
    axes.set_xlabel(f"eps ({series[0].norm})")
    accuracy_axis(axes)
    axes.set_title(heading(title), fontsize=10)
    legend(axes, len(names))
    return figure
