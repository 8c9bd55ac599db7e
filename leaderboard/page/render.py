"""The page as text, from its content. No file is read but the page's own templates, and none is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from gauntlet.leaderboard.page.agreement import Agreement, agreement
from gauntlet.leaderboard.page.assets import environment, policy, script
from gauntlet.leaderboard.page.chart import Axis, Chart
from gauntlet.leaderboard.page.charts import MOST_CURVES, clean_chart, cost_charts, eps_axis, eps_chart
from gauntlet.leaderboard.page.content import PageContent, RowKey
from gauntlet.leaderboard.page.details import EpsCurve, PictureColumn, RowDetails
from gauntlet.leaderboard.page.row_page import (
    AttackLine,
    Confusion,
    FlagView,
    StageLine,
    attack_lines,
    classes,
    confusion,
    costs,
    flag_views,
    provenance,
    stage_lines,
)
from gauntlet.leaderboard.page.table import FACETS, TableRow, columns, table_rows
from gauntlet.leaderboard.report.comparisons import describe_comparisons
from gauntlet.leaderboard.report.formatting import target_meaning
from gauntlet.leaderboard.report.markdown_writer import READING, READING_RANDOMISED
from gauntlet.leaderboard.report.model_table import TITLES, same_weights
from gauntlet.leaderboard.report.notes import checks_off, verdict
from gauntlet.leaderboard.results.summary import CellSummary
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.per_class import ClassAccuracy
from gauntlet.leaderboard.rows.references import references
from gauntlet.leaderboard.rows.worst_case import row_key


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


@dataclass(frozen=True)
class Section:
    """The charts of the rows of one threat model, data set and suite, or of one norm."""

    title: str
    note: str
    charts: Sequence[Chart]
    agreement: Agreement | None = None


@dataclass(frozen=True)
class Facet:
    """A filter: rows are marked with the places of their values."""

    key: str
    heading: str
    options: tuple[str, ...]
    missing: str
    """The option for rows without a value; empty where all rows have one."""


def render_page(content: PageContent) -> str:
    """The whole HTML file. Raises PageMissingError, and ValueError as `build_rows` does."""
    env = environment()
    from markupsafe import Markup

    ordered = build_rows(content.results)
    rows = table_rows(ordered, content, references(ordered, content.published))
    cells = _cells_by_row(content.results)
    details = {one.row.key: content.details(one.row.key) for one in rows}
    curves = {key: found.curve for key, found in details.items() if found.curve is not None}
    facets = _facets(rows)
    code = script()
    context = content.context
    return env.get_template("page.html").render(
        title="Leaderboard",
        subtitle=_subtitle(content, rows),
        policy=policy(code),
        css=Markup((files(__package__) / "templates" / "page.css").read_text(encoding="utf-8")),  # noqa: S704
        script=Markup(code),  # noqa: S704
        verdict=[*verdict(ordered), *([checks_off("command line")] if context.checks == "none" else [])],
        columns=columns(rows) if rows else [],
        rows=rows,
        marks=[_marks(one, facets) for one in rows],
        facets=facets,
        views=[_view(one, rows, cells[one.row.key], details[one.row.key], curves, content) for one in rows],
        sections=[*_eps_sections(rows, curves), *_sections(rows, cells)],
        reading=[*READING, *([READING_RANDOMISED] if any(row.randomised for row in ordered) else [])],
        errors=_errors(content.results),
        setup=_setup(content),
        twins=same_weights(content.results),
        commands=[line for line in context.command.splitlines() if line.strip()],
    )


def _cells_by_row(results: Sequence[CellSummary]) -> dict[RowKey, list[CellSummary]]:
    """The cells of each row; corruptions belong to all rows of their model, defense, threat model and data."""
    found: dict[RowKey, list[CellSummary]] = {}
    for result in results:
        found.setdefault(row_key(result.cell), []).append(result)
    return found


def _subtitle(content: PageContent, rows: Sequence[TableRow]) -> str:
    models = len({one.row.model for one in rows})
    parts = [
        content.context.data,
        ", ".join(content.context.threat_models),
        f"{models} model{'' if models == 1 else 's'}",
        content.context.started[:10],
    ]
    return " · ".join(part for part in parts if part)


def _facets(rows: Sequence[TableRow]) -> list[Facet]:
    """The filters that tell rows apart."""
    made = []
    for key, heading in FACETS.items():
        options = tuple(dict.fromkeys(value for one in rows for value in one.facets[key]))
        lacking = any(not one.facets[key] for one in rows)
        missing = ("no flag" if key == "flag" else "not described") if lacking and options else ""
        made.append(Facet(key, heading, options, missing))
    return [facet for facet in made if facet.key == "threat" or len(facet.options) + bool(facet.missing) > 1]


def _marks(one: TableRow, facets: Sequence[Facet]) -> str:
    """For each filter the places of the row's values, by `;`."""
    return ";".join(
        " ".join(str(facet.options.index(value)) for value in one.facets[facet.key]) or str(len(facet.options))
        for facet in facets
    )


def _view(
    one: TableRow,
    rows: Sequence[TableRow],
    cells: Sequence[CellSummary],
    details: RowDetails,
    curves: Mapping[RowKey, EpsCurve],
    content: PageContent,
) -> RowView:
    row, about = one.row, one.description
    group = [other for other in rows if _pipeline(other) == _pipeline(one)]
    own = {key: curve for key, curve in curves.items() if key == row.key}
    curve = None
    if own or len(group) > 1:
        title = "Robust accuracy against eps"
        curve = eps_chart(title, [group], own or curves, _axis(rows, one, curves))
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
        confusion=confusion(details.confusion, row.class_names),
        pictures=details.pictures,
        costs=costs(row, cells),
        provenance=provenance(row, cells),
        command=content.commands.get(row.key, content.context.command),
    )


def _pipeline(one: TableRow) -> tuple[str, ...]:
    """What rows share that differ in their radius alone."""
    row = one.row
    return row.model, row.defense, row.norm, row.threat.partition(":target=")[2], row.data, row.suite


def _axis(rows: Sequence[TableRow], one: TableRow, curves: Mapping[RowKey, EpsCurve]) -> Axis:
    return eps_axis([other for other in rows if _pipeline(other)[2:] == _pipeline(one)[2:]], curves)


def _eps_sections(rows: Sequence[TableRow], curves: Mapping[RowKey, EpsCurve]) -> list[Section]:
    """A section with the charts against eps, one for each norm, data set and suite with several radii or a curve."""
    scopes: dict[tuple[str, ...], dict[tuple[str, ...], list[TableRow]]] = {}
    for one in rows:
        scopes.setdefault(_pipeline(one)[2:], {}).setdefault(_pipeline(one), []).append(one)
    charts = []
    for (norm, _, data, suite), pipelines in scopes.items():
        groups = [
            members
            for members in pipelines.values()
            if len(members) > 1 or any(one.row.key in curves for one in members)
        ]
        best = sorted(groups, key=lambda members: -max(one.row.robust.successes for one in members))[:MOST_CURVES]
        if best:
            axis = eps_axis([one for members in pipelines.values() for one in members], curves)
            chart = eps_chart(f"{norm} on {data}, suite {suite}", best, curves, axis)
            charts += [chart] if chart is not None else []
    return [Section("Robust accuracy against eps", "", charts)] if charts else []


def _sections(rows: Sequence[TableRow], cells: Mapping[RowKey, Sequence[CellSummary]]) -> list[Section]:
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


def _errors(results: Sequence[CellSummary]) -> list[str]:
    return [
        f"{one.cell.title}, {one.cell.threat}, seed {one.cell.seed}: {one.error.kind}: {one.error.message}"
        for one in results
        if one.error is not None
    ]


def _setup(content: PageContent) -> list[tuple[str, str]]:
    context = content.context
    facts = [
        ("threat models", ", ".join(context.threat_models)),
        ("data", context.data),
        ("device", context.device),
        ("seed", str(context.seed)),
        ("checks", context.checks),
        ("versions", ", ".join(f"{name} {version}" for name, version in context.versions.items())),
        ("started", context.started),
        ("records", context.run_path),
    ]
    return [(name, value) for name, value in facts if value]
