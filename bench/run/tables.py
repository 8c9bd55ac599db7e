"""The tables and the page of a run, written into its results folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.planning.row_command import row_command
from gauntlet.bench.run.run_folder import Run
from gauntlet.leaderboard.page.content import PageContent, RowKey
from gauntlet.leaderboard.page.details import RowDetails, row_details
from gauntlet.leaderboard.page.details_file import details_path, read_details, write_details
from gauntlet.leaderboard.page.write_page import write_page
from gauntlet.leaderboard.report.leaderboard_files import WrittenFiles, write_leaderboard_files
from gauntlet.leaderboard.results.summary import AnyResult, summaries
from gauntlet.leaderboard.results.summary_file import changed_just_now, state_of
from gauntlet.leaderboard.rows.worst_case import row_key


def write_leaderboard(run: Run, results: Sequence[AnyResult]) -> WrittenFiles:
    """Write the files of the leaderboard of a run with these results into the results folder. Raises WriteError, StoreError."""
    return write_leaderboard_files(run.root, results, run.context, run.published())


def write_run_page(run: Run, results: Sequence[AnyResult]) -> Path:
    """Write the page of a run with these results. Raises PageMissingError, WriteError, StoreError."""
    content = PageContent(
        summaries(results), run.context, run.published(), details=details_of(run), commands=row_commands(run)
    )
    return write_page(run.root, content)


def details_of(run: Run) -> Callable[[RowKey], RowDetails]:
    """A function that gives the details of a row of the run: read, where they were made of the same blocks here before.

    The function raises StoreError.
    """
    rows = _rows(run)
    return lambda key: _details(run, [cell for cell in rows.get(key, []) if cell.info.adversarial])


def row_commands(run: Run) -> dict[RowKey, str]:
    """The command that repeats each row of the run into its results folder."""
    return {key: row_command(cells, run.context.command, run.root) for key, cells in _rows(run).items()}


def _rows(run: Run) -> dict[RowKey, list[Cell]]:
    rows: dict[RowKey, list[Cell]] = {}
    for cell in run.plan.cells:
        rows.setdefault(row_key(cell.info), []).append(cell)
    return rows


def _details(run: Run, cells: Sequence[Cell]) -> RowDetails:
    if run.held is not None or not cells:
        return row_details([run.result(cell) for cell in cells])
    states = [state_of(run.store, run.keys(cell) or []) for cell in cells]
    path = details_path(run.root, [cell.name for cell in cells], states)
    known = read_details(path, states)
    if known is None:
        known = row_details([run.result(cell) for cell in cells])
        if not any(map(changed_just_now, states)):
            write_details(path, known, states)
    return known
