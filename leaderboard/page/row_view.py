"""What the page of a row shows, put together from its cells, its blocks and its description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gauntlet.leaderboard.page.chart import Chart
from gauntlet.leaderboard.page.charts import eps_chart
from gauntlet.leaderboard.page.confusions import Confusion
from gauntlet.leaderboard.page.content import PageContent
from gauntlet.leaderboard.page.details import PictureColumn, RowDetails
from gauntlet.leaderboard.page.row_page import (
    AttackLine,
    FlagView,
    StageLine,
    attack_lines,
    classes,
    costs,
    flag_views,
    provenance,
    stage_lines,
)
from gauntlet.leaderboard.page.sections import Radii
from gauntlet.leaderboard.page.table import TableRow
from gauntlet.leaderboard.report.model_table import TITLES
from gauntlet.leaderboard.results.summary import CellSummary
from gauntlet.leaderboard.rows.per_class import ClassAccuracy


@dataclass(frozen=True)
class RowView:
    """What the page of a row shows beside its line."""

    description: Sequence[tuple[str, str]]
    attacks: Sequence[AttackLine]
    stages: Sequence[StageLine]
    flags: Sequence[FlagView]
    curve: Chart | None
    classes: Sequence[ClassAccuracy]
    confusion: Confusion | None
    pictures: Sequence[PictureColumn]
    costs: Sequence[tuple[str, str]]
    provenance: Sequence[tuple[str, str]]
    command: str


def row_view(
    one: TableRow, cells: Sequence[CellSummary], details: RowDetails, radii: Radii, content: PageContent
) -> RowView:
    """The page of a row with these cells and details; `radii` has the rows of its pipeline."""
    row, about = one.row, one.description
    curve = None
    if radii.drawn:
        curves = radii.curves if details.curve is None else {row.key: details.curve}
        curve = eps_chart("Robust accuracy against eps", [radii.members], curves, radii.axis)
    return RowView(
        description=[
            (title, getattr(about, name)) for name, title in TITLES.items() if name != "name" and getattr(about, name)
        ]
        if about is not None
        else [],
        attacks=attack_lines(cells),
        stages=stage_lines(cells),
        flags=flag_views(row),
        curve=curve,
        classes=classes(row),
        confusion=details.confusion,
        pictures=details.pictures,
        costs=costs(row, cells),
        provenance=provenance(row, cells),
        command=content.commands.get(row.key, content.context.command),
    )
