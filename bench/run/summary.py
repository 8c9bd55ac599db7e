"""The summary of a run: writes the leaderboard's files, and gives the lines to print."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gauntlet.bench.run.engine import write_leaderboard
from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.report.terminal import describe_references, terminal_table
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.references import references


def summary(folder: Path) -> Iterator[str]:
    """Write the leaderboard of the run in `folder`, and yield the lines to print."""
    try:
        run = load_run(folder)
        files, results = write_leaderboard(run)
        table, published = build_rows(results), run.published()
    except (StoreError, ValueError, OSError) as error:
        yield f"ERROR: the leaderboard could not be written: {error}"
        return
    yield from terminal_table(table).splitlines()
    if lines := list(describe_references(references(table, published))):
        yield ""
        yield from map(visible, lines)
    stored = sum(all(block.cached for block in result.blocks) for result in results if result.blocks)
    errors = sum(result.error is not None for result in results)
    unfinished = sum(cells.status(result) == "unfinished" for result in results)
    yield ""
    yield (
        f"{len(results)} cells: {stored} answered from the store (their recorded seconds are shown), {errors} in error, "
        f"{unfinished} not run"
    )
    for path in (files.leaderboard_csv, files.cells_csv, files.classes_csv, files.published_csv, files.markdown):
        if path is not None:
            yield f"written: {path}"
    yield f"verify every stored example: gauntlet verify {run.root}"
