"""The files of a leaderboard: leaderboard.csv, cells.csv, classes.csv and leaderboard.md, written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gauntlet.leaderboard.report.class_tables import classes_frame
from gauntlet.leaderboard.report.markdown import RunContext, report
from gauntlet.leaderboard.report.terminal import terminal_table
from gauntlet.leaderboard.results.atomic_files import replace_files
from gauntlet.leaderboard.results.escape import spreadsheet
from gauntlet.leaderboard.results.published import Published
from gauntlet.leaderboard.results.record import CellResult
from gauntlet.leaderboard.rows.frames import cells_frame, leaderboard_frame
from gauntlet.leaderboard.rows.references import references, references_frame, with_published
from gauntlet.leaderboard.rows.table import rows

__all__ = ["RunContext", "WrittenFiles", "csv_text", "terminal_table", "write"]


@dataclass(frozen=True)
class WrittenFiles:
    """Where the files lie."""

    leaderboard_csv: Path
    cells_csv: Path
    classes_csv: Path
    markdown: Path
    published_csv: Path | None = None
    """Where others have stated figures of the models."""


def write(
    folder: Path,
    results: Sequence[CellResult],
    context: RunContext,
    published: Sequence[tuple[str, Published]] = (),
) -> WrittenFiles:
    """Write the files into `folder`, which is made where it does not exist: four, and `published.csv` where there are
    `published` figures (each with the name of its model in the tables) beside measured ones.

    The CSV files hold the tables of `frames`, accuracies as shares in 0..1: text as `string`, counts and ranks as
    `Int64`, other numbers as `float64`, yes or no as `bool`, an empty field for no value; `frames.read_leaderboard`,
    `frames.read_cells` and `class_tables.read_classes` give the same types back. Text is passed through `escape.spreadsheet`.

    Each file is written beside its place, flushed to the disk, and moved there once all of them are whole. Raises WriteError
    that names the file; where it could not be written (a full disk, a missing right) all old files are as they were.
    """
    table = rows(results)
    found = references(table, published)
    files = WrittenFiles(
        leaderboard_csv=folder / "leaderboard.csv",
        cells_csv=folder / "cells.csv",
        classes_csv=folder / "classes.csv",
        markdown=folder / "leaderboard.md",
        published_csv=folder / "published.csv" if found else None,
    )
    texts = {
        files.leaderboard_csv: csv_text(with_published(leaderboard_frame(table), table, found)),
        files.cells_csv: csv_text(cells_frame(results)),
        files.classes_csv: csv_text(classes_frame(table)),
        files.markdown: report(table, results, context, found),
    }
    if files.published_csv is not None:
        texts[files.published_csv] = csv_text(references_frame(found))
    replace_files({path: text.encode() for path, text in texts.items()})
    if not found:
        (folder / "published.csv").unlink(missing_ok=True)
    return files


def csv_text(frame: pd.DataFrame) -> str:
    """The table as CSV with a header; text and column names are made safe for spreadsheets, numbers are left alone."""
    safe = frame.copy()
    for name in safe.columns[safe.dtypes == "string"]:
        safe[name] = safe[name].map(spreadsheet)
    return str(safe.rename(columns=spreadsheet).to_csv(index=False, lineterminator="\n"))
