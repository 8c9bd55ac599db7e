"""Further forms of the tables of a results folder: the page, JSON and LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from gauntlet.leaderboard.page.write_page import PAGE
from gauntlet.leaderboard.report.latex_tables import latex_tables
from gauntlet.leaderboard.report.leaderboard_json import leaderboard_json
from gauntlet.leaderboard.report.markdown_writer import RunContext
from gauntlet.leaderboard.report.model_table import ModelDescription
from gauntlet.leaderboard.results.atomic_files import replace_text
from gauntlet.leaderboard.results.published_figure import PublishedFigure
from gauntlet.leaderboard.results.summary import CellSummary
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.references import references

FORMATS: Final = ("csv", "md", "html", "json", "latex")
ALWAYS: Final = ("csv", "md")
"""Written whatever else is asked for: the folder keeps them, and says what changed."""


FILES: Final = {"html": PAGE, "json": "leaderboard.json", "latex": "leaderboard.tex"}
"""The files of the formats that are written only where they are asked for."""


class FormatError(ValueError):
    """A format that tables are not written in; the message names those that they are."""


def parse_formats(text: str) -> tuple[str, ...]:
    """The formats of a list with commas. Raises FormatError."""
    chosen = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if wrong := [name for name in chosen if name not in FORMATS]:
        raise FormatError(f"--format {wrong[0]!r} is not known: give some of {', '.join(FORMATS)}, separated by commas")
    return chosen


def write_formats(
    root: Path,
    formats: Sequence[str],
    results: Sequence[CellSummary],
    context: RunContext,
    published: Sequence[tuple[str, PublishedFigure]],
    models: Sequence[ModelDescription],
) -> list[Path]:
    """Write `leaderboard.json` and `leaderboard.tex`, if they are among the formats. Raises LatexMissingError, WriteError."""
    if not {"json", "latex"}.intersection(formats):
        return []
    rows = build_rows(results)
    texts: dict[str, tuple[str, Callable[[], str]]] = {
        "json": (FILES["json"], lambda: leaderboard_json(rows, context, references(rows, published), models)),
        "latex": (FILES["latex"], lambda: latex_tables(rows, {one.model: one for one in models})),
    }
    written = []
    for name, (file, make) in texts.items():
        if name in formats:
            replace_text(root / file, make())
            written.append(root / file)
    return written


def earlier_files(root: Path, formats: Sequence[str]) -> list[str]:
    """A line on the files of other formats that earlier commands wrote, with the option that writes them; else empty."""
    left = {name: file for name, file in FILES.items() if name not in formats and (root / file).exists()}
    if not left:
        return []
    again = f"--format {','.join(left)} writes {'it' if len(left) == 1 else 'them'}"
    return [f"not written again: {', '.join(left.values())} ({again})"]
