"""The files of a leaderboard: `leaderboard.csv`, `cells.csv`, `classes.csv`, `published.csv` and `leaderboard.md`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gauntlet.leaderboard.report.cells_csv import cells_frame
from gauntlet.leaderboard.report.classes_csv import classes_frame
from gauntlet.leaderboard.report.csv_writer import csv_text
from gauntlet.leaderboard.report.leaderboard_csv import leaderboard_frame
from gauntlet.leaderboard.report.markdown_writer import RunContext, markdown_report
from gauntlet.leaderboard.report.model_table import ModelDescription, models_csv, models_section, same_weights
from gauntlet.leaderboard.report.published_csv import published_frame, with_published
from gauntlet.leaderboard.results.atomic_files import remove_file, replace_files
from gauntlet.leaderboard.results.published_figure import PublishedFigure
from gauntlet.leaderboard.results.summary import AnyResult, summaries
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.references import references
from gauntlet.leaderboard.rows.row import LeaderboardRow


@dataclass(frozen=True)
class WrittenFiles:
    """Paths of the files that were written, and the rows in them."""

    leaderboard_csv: Path
    cells_csv: Path
    classes_csv: Path
    markdown: Path
    published_csv: Path | None = None
    """None if no published figure has a measured one beside it."""
    models_csv: Path | None = None
    """None if no model is described."""
    rows: tuple[LeaderboardRow, ...] = ()
    """What the tables show, in their order."""


def write_leaderboard_files(
    folder: Path,
    results: Sequence[AnyResult],
    context: RunContext,
    published: Sequence[tuple[str, PublishedFigure]] = (),
    models: Sequence[ModelDescription] = (),
) -> WrittenFiles:
    """Write the files into `folder`, which is created if needed.

    `models`: descriptions of models, for `models.csv` and a section of the report. `published`: published figures, each with the
    name of its model in the tables. `published.csv` is written only if one of them has a measured figure beside it.

    In the CSV files accuracies are shares in 0..1 and an empty field is a missing value. `read_leaderboard`, `read_cells`,
    `read_classes` and `read_published` return the tables with their types.

    The files are replaced together, once all of them are written; `models.csv` and `published.csv` of before are removed where
    they are not written. Raises WriteError, which names the file; all older files are then intact.
    """
    cells = summaries(results)
    rows = build_rows(cells)
    compared = references(rows, published)
    files = WrittenFiles(
        leaderboard_csv=folder / "leaderboard.csv",
        cells_csv=folder / "cells.csv",
        classes_csv=folder / "classes.csv",
        markdown=folder / "leaderboard.md",
        published_csv=folder / "published.csv" if compared else None,
        models_csv=folder / "models.csv" if models else None,
        rows=tuple(rows),
    )
    texts = {
        files.leaderboard_csv: csv_text(with_published(leaderboard_frame(rows), rows, compared)),
        files.cells_csv: csv_text(cells_frame(cells)),
        files.classes_csv: csv_text(classes_frame(rows)),
        files.markdown: markdown_report(rows, cells, context, compared, [models_section(models, same_weights(cells))]),
    }
    if files.models_csv is not None:
        texts[files.models_csv] = models_csv(models)
    if files.published_csv is not None:
        texts[files.published_csv] = csv_text(published_frame(compared))
    replace_files({path: text.encode() for path, text in texts.items()})
    for name, written in (("published.csv", files.published_csv), ("models.csv", files.models_csv)):
        if written is None:
            remove_file(folder / name)
    return files
