"""The charts of a page: accuracy against cost, against eps, and clean against robust accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gauntlet.leaderboard.page.chart import Axis, Chart, Line, Point, across, band, place, steps, up
from gauntlet.leaderboard.page.content import RowKey
from gauntlet.leaderboard.page.table import TableRow
from gauntlet.leaderboard.pictures.eps_curve import EpsCurve
from gauntlet.leaderboard.report import formatting
from gauntlet.leaderboard.stats.proportions import Proportion

MOST_CURVES: Final = 6
"""Number of rows that a chart against eps shows at first: those with the highest robust accuracy."""
_DIFFERENT: Final = 1.05
"""Ratio of the largest to the smallest cost from which on there is something to see."""
_MOST_INTERVALS: Final = 60
_ROBUST: Final = Axis("robust accuracy (%)", 0, 100)


@dataclass(frozen=True)
class _Cost:
    name: str
    label: str
    of: Callable[[TableRow], float]


_COSTS: Final = (
    _Cost(
        "passes",
        "passes a sample (forward + backward)",
        lambda one: one.row.forwards_per_sample + one.row.backwards_per_sample,
    ),
    _Cost("seconds", "seconds of all attacks", lambda one: one.row.seconds),
    _Cost("memory", "peak memory (MiB)", lambda one: one.row.peak_memory_mib),
)


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, value) than which no other has a value as high at a cost as low, by ascending cost."""
    best: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or value > best[-1][1]:
            best.append((cost, value))
    return best


def cost_charts(rows: Sequence[TableRow]) -> list[Chart]:
    """Robust accuracy against each cost in which rows differ, with the frontier."""
    charts = []
    for cost in _COSTS:
        known = [(cost.of(one), one) for one in rows if one.bar is not None and cost.of(one) > 0]
        known = [(value, one) for value, one in known if math.isfinite(value)]
        values = [value for value, _ in known]
        if len(values) < 2 or max(values) < _DIFFERENT * min(values):
            continue
        x = _log_axis(cost.label, values)
        edge = frontier([(value, 100 * one.row.robust.estimate) for value, one in known])
        path = steps(x, _ROBUST, *zip(*edge, strict=True))
        names = [one for value, one in known if (value, 100 * one.row.robust.estimate) in edge]
        charts.append(
            Chart(
                f"Robust accuracy against {cost.name}",
                f"{len(known)} rows; on the frontier, from cheap to costly: {', '.join(one.title for one in names[:8])}.",
                x,
                _ROBUST,
                tuple(_point(x, value, one, len(known)) for value, one in known),
                (Line(path, "frontier: the highest robust accuracy at this cost or below"),),
                "cost",
            )
        )
    return charts


def clean_chart(rows: Sequence[TableRow]) -> Chart | None:
    """Robust against clean accuracy; None for fewer than two rows."""
    known = [one for one in rows if one.bar is not None]
    if len(known) < 2:
        return None
    least = min(100 * one.row.clean.estimate for one in known)
    x = Axis("clean accuracy (%)", max(0, 10 * math.floor(least / 10 - 0.5)), 100)
    low = max(x.low, _ROBUST.low)
    diagonal = f"M{place(across(x, low))} {place(up(_ROBUST, low))}L{place(across(x, 100))} {place(up(_ROBUST, 100))}"
    return Chart(
        "Robust against clean accuracy",
        f"{len(known)} rows; no point can lie above the line, where the attacks break nothing.",
        x,
        _ROBUST,
        tuple(_point(x, 100 * one.row.clean.estimate, one, len(known)) for one in known),
        (Line(diagonal, "robust accuracy equals clean accuracy"),),
        "clean",
    )


def _point(x: Axis, value: float, one: TableRow, beside: int) -> Point:
    """The point of a row; its interval is drawn where there are few."""
    low, high = one.row.robust.interval
    few = beside <= _MOST_INTERVALS
    return Point(
        across(x, value),
        up(_ROBUST, 100 * one.row.robust.estimate),
        f"{one.title}: {formatting.with_interval(one.row.robust)} %, {value:.4g}",
        one.anchor,
        up(_ROBUST, 100 * low) if few else None,
        up(_ROBUST, 100 * high) if few else None,
    )


def _log_axis(label: str, values: Sequence[float]) -> Axis:
    return Axis(label, min(values) / 1.2, max(values) * 1.2, log=True)


def eps_axis(rows: Iterable[TableRow], curves: Mapping[RowKey, EpsCurve]) -> Axis:
    """One axis for all rows of a norm and data set, so that their curves may be laid on each other.

    It reaches beyond the largest radius that was attacked, and not to the last few samples of a curve.
    """
    members = list(rows)
    ends = [1.5 * one.row.eps for one in members]
    for one in members:
        curve = curves.get(one.row.key)
        if curve is not None and len(curve.eps) > 1:
            ends.append(1.05 * float(curve.eps[int(0.95 * (len(curve.eps) - 1))]))
    return Axis(f"eps ({members[0].row.norm})", 0.0, max([*ends, 1e-9]))


def eps_chart(
    title: str,
    groups: Sequence[Sequence[TableRow]],
    curves: Mapping[RowKey, EpsCurve],
    x: Axis,
) -> Chart | None:
    """Robust accuracy against eps, a colour for each group: the rows of one pipeline at several radii.

    Minimum-norm attacks give the accuracy at every eps, as steps with their 95 % bands. Radii that were attacked are points with
    their intervals, the worst case over all attacks; the clean accuracy is the point at 0. None for groups without figures.
    """
    points: list[Point] = []
    lines: list[Line] = []
    words, legend = [], []
    by: dict[str, None] = {}
    for series, members in enumerate(groups):
        known = [one for one in members if one.bar is not None]
        if not known:
            continue
        name = known[0].title
        curve = next((curves[one.row.key] for one in known if one.row.key in curves), None)
        if curve is not None:
            lines.append(curve_line(curve, x, name, series))
            by |= dict.fromkeys(curve.attacks)
        legend.append((name, known[0].anchor, series))
        points.append(
            Point(
                across(x, 0),
                up(_ROBUST, 100 * known[0].row.clean.estimate),
                f"{name}, clean: {formatting.with_interval(known[0].row.clean)} %",
                known[0].anchor,
                series=series,
            )
        )
        for one in known:
            low, high = one.row.robust.interval
            points.append(
                Point(
                    across(x, one.row.eps),
                    up(_ROBUST, 100 * one.row.robust.estimate),
                    f"{name}, eps {one.row.eps:.4g}: {formatting.with_interval(one.row.robust)} %",
                    one.anchor,
                    up(_ROBUST, 100 * low),
                    up(_ROBUST, 100 * high),
                    series,
                )
            )
        radii = ", ".join(f"{formatting.percent(one.row.robust)} % at {one.row.eps:.4g}" for one in known)
        words.append(f"{name}: clean {formatting.percent(known[0].row.clean)} %, {radii}")
    if not points:
        return None
    note = "Points: worst case over all attacks at the radii that were attacked, with 95 % intervals; at eps 0 clean accuracy."
    if by:
        note += f" Steps: every eps, by {', '.join(by)}, with the 95 % band."
    return Chart(title, "; ".join(words) + ".", x, _ROBUST, tuple(points), tuple(lines), "eps", tuple(legend), note)


def curve_line(curve: EpsCurve, x: Axis, name: str, series: int) -> Line:
    """The steps of a curve with their 95 % band."""
    shares = [Proportion(int(count), curve.n) for count in curve.standing]
    eps = curve.eps.tolist()
    intervals = [share.interval for share in shares]
    return Line(
        steps(x, _ROBUST, eps, [100 * share.estimate for share in shares]),
        f"{name}, by {', '.join(curve.attacks)}",
        band(x, _ROBUST, eps, [100 * low for low, _ in intervals], [100 * high for _, high in intervals]),
        series,
    )
