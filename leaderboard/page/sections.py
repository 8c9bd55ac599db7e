"""The charts of a page in sections: against eps by norm, the others by threat model, data set and suite."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gauntlet.leaderboard.page.agreement import Agreement, agreement
from gauntlet.leaderboard.page.chart import Axis, Chart
from gauntlet.leaderboard.page.charts import MOST_CURVES, clean_chart, cost_charts, eps_axis, eps_chart
from gauntlet.leaderboard.page.content import RowKey
from gauntlet.leaderboard.page.table import TableRow
from gauntlet.leaderboard.pictures.eps_curve import EpsCurve
from gauntlet.leaderboard.report.comparisons import describe_comparisons
from gauntlet.leaderboard.report.formatting import target_meaning
from gauntlet.leaderboard.results.summary import CellSummary


@dataclass(frozen=True)
class Section:
    """The charts of the rows of one threat model, data set and suite, or of one norm."""

    title: str
    note: str
    charts: Sequence[Chart]
    agreement: Agreement | None = None
    scopes: Sequence[str] = ()
    """For charts to which other rows may be added, marks that these rows bear too."""


def pipeline(one: TableRow) -> tuple[str, ...]:
    """What rows share that differ in their radius alone."""
    row = one.row
    return row.model, row.defense, row.norm, row.threat.partition(":target=")[2], row.data, row.suite


def scope_mark(scope: tuple[str, ...]) -> str:
    """A short name of what rows share whose curves may be laid on each other."""
    return hashlib.sha256(repr(scope).encode("utf-8", "backslashreplace")).hexdigest()[:8]


@dataclass(frozen=True)
class Radii:
    """The rows of one pipeline at several radii."""

    members: Sequence[TableRow]
    curves: Mapping[RowKey, EpsCurve]
    """Those of its rows."""
    axis: Axis
    """The same for all pipelines of a norm, data set and suite."""

    @property
    def drawn(self) -> bool:
        """Whether there is more to draw than one point."""
        return len(self.members) > 1 or bool(self.curves)


def by_radius(rows: Sequence[TableRow], curves: Mapping[RowKey, EpsCurve]) -> dict[tuple[str, ...], Radii]:
    """The rows of each pipeline, by its name as `pipeline` gives it."""
    scopes: dict[tuple[str, ...], dict[tuple[str, ...], list[TableRow]]] = {}
    for one in rows:
        scopes.setdefault(pipeline(one)[2:], {}).setdefault(pipeline(one), []).append(one)
    made = {}
    for pipelines in scopes.values():
        axis = eps_axis([one for members in pipelines.values() for one in members], curves)
        for name, members in pipelines.items():
            own = {one.row.key: curves[one.row.key] for one in members if one.row.key in curves}
            made[name] = Radii(members, own, axis)
    return made


def eps_sections(pipelines: Mapping[tuple[str, ...], Radii], curves: Mapping[RowKey, EpsCurve]) -> list[Section]:
    """A section with the charts against eps, one for each norm, data set and suite with several radii or a curve."""
    scopes: dict[tuple[str, ...], list[Radii]] = {}
    for name, radii in pipelines.items():
        if radii.drawn:
            scopes.setdefault(name[2:], []).append(radii)
    charts, marks = [], []
    for (norm, target, data, suite), members in scopes.items():
        best = sorted(members, key=lambda radii: -max(one.row.robust.successes for one in radii.members))[:MOST_CURVES]
        chart = eps_chart(f"{norm} on {data}, suite {suite}", [radii.members for radii in best], curves, best[0].axis)
        if chart is not None:
            charts.append(chart)
            marks.append(scope_mark((norm, target, data, suite)))
    return [Section("Robust accuracy against eps", "", charts, scopes=marks)] if charts else []


def sections(rows: Sequence[TableRow], cells: Mapping[RowKey, Sequence[CellSummary]]) -> list[Section]:
    """A section for each threat model, data set and suite, with its charts and the agreement of its attacks."""
    groups: dict[tuple[str, str, str], list[TableRow]] = {}
    for one in rows:
        groups.setdefault((one.row.threat, one.row.data, one.row.suite), []).append(one)
    made = []
    for (threat, data, suite), members in groups.items():
        clean = clean_chart(members)
        made.append(
            Section(
                title=f"{threat} on {data}, suite {suite}",
                note=" ".join(
                    part
                    for part in (target_meaning(threat), describe_comparisons([one.row for one in members]))
                    if part
                ),
                charts=[*([clean] if clean is not None else []), *cost_charts(members)],
                agreement=agreement([one.row.key for one in members], cells),
            )
        )
    return [section for section in made if section.charts or section.agreement]
