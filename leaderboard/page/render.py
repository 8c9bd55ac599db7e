"""The page as text, from its content. No file is read but the page's own templates, and none is written."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from typing import Final

from gauntlet.leaderboard.page.assets import FIRST, environment, policy, script, style
from gauntlet.leaderboard.page.content import PageContent, RowKey
from gauntlet.leaderboard.page.facets import facets_of, marks
from gauntlet.leaderboard.page.row_view import row_view
from gauntlet.leaderboard.page.sections import by_radius, eps_sections, pipeline, scope_mark, sections
from gauntlet.leaderboard.page.table import TableRow, columns, table_rows
from gauntlet.leaderboard.report import formatting
from gauntlet.leaderboard.report.markdown_writer import READING, READING_RANDOMISED
from gauntlet.leaderboard.report.model_table import same_weights
from gauntlet.leaderboard.report.notes import checks_off, verdict
from gauntlet.leaderboard.results.summary import CellSummary
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.references import references
from gauntlet.leaderboard.rows.worst_case import row_key

PLAIN: Final = 100
"""Number of rows up to which their pages are part of the document; of more, they are packed and need the script."""


def render_page(content: PageContent) -> str:
    """The whole HTML file. Raises PageMissingError, and ValueError as `build_rows` does."""
    env, code = environment(), script()
    from markupsafe import Markup

    ordered = build_rows(content.results)
    rows = table_rows(ordered, content, references(ordered, content.published))
    cells = _cells_by_row(content.results)
    details = {one.row.key: content.details(one.row.key) for one in rows}
    curves = {key: found.curve for key, found in details.items() if found.curve is not None}
    facets = facets_of(rows)
    radii = by_radius(rows, curves)
    template = env.get_template("row.html")
    pages = {
        one.anchor: template.render(
            one=one,
            view=row_view(one, cells.get(one.row.key, []), details[one.row.key], radii[pipeline(one)], content),
        )
        for one in sorted(rows, key=pipeline)
    }
    packed = pack(pages) if len(pages) > PLAIN else ""
    context = content.context
    return env.get_template(
        "page.html"
    ).render(
        title="Leaderboard",
        subtitle=_subtitle(content, rows),
        policy=policy(FIRST, code),
        first=Markup(FIRST),  # noqa: S704
        css=Markup(style()),  # noqa: S704
        script=Markup(code),  # noqa: S704
        verdict=[*verdict(ordered), *([checks_off("command line")] if context.checks == "none" else [])],
        columns=columns(rows) if rows else [],
        rows=rows,
        several=len({(one.row.threat, one.row.data, one.row.suite) for one in rows}) > 1,
        marks=[marks(one, facets) for one in rows],
        facets=facets,
        scopes=[scope_mark(pipeline(one)[2:]) if radii[pipeline(one)].drawn else "" for one in rows],
        pages=[] if packed else [Markup(page) for page in pages.values()],  # noqa: S704
        packed=packed,
        sections=[*eps_sections(radii, curves), *sections(rows, cells)],
        reading=[*READING, *([READING_RANDOMISED] if any(row.randomised for row in ordered) else [])],
        errors=_errors(content.results),
        setup=_setup(content),
        twins=same_weights(content.results),
        commands=[line for line in context.command.splitlines() if line.strip()],
    )


def pack(pages: Mapping[str, str]) -> str:
    """The pages of rows by their names, compressed and as text; the page's script unpacks it.

    Each begins with the record separator and its name in a line, neither of which any text of a page has.
    """
    whole = "".join(f"\x1e{name}\n{page}" for name, page in pages.items())
    return base64.b64encode(gzip.compress(whole.encode(), 9, mtime=0)).decode()


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
        formatting.counted(models, "model"),
        content.context.started[:10],
    ]
    return " · ".join(part for part in parts if part)


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
