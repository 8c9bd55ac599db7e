"""The summary of a run: its leaderboard's files written, and the lines that show them."""

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
    """Write the leaderboard of the run in `folder`, and yield the lines that show it."""
    try:
        run = load_run(folder)
        files, results = write_leaderboard(run)
        table, published = build_rows(results), run.published()
    except (StoreError, ValueError, OSError) as error:
        yield f"ERROR: the leaderboard could not be written: {error}"
        return
    yield from terminal_table(table).splitlines()
    if found := list(describe_references(references(table, published))):
        yield ""
        yield from map(visible, found)
    stored = sum(all(block.cached for block in one.blocks) for one in results if one.blocks)
    errors = sum(one.error is not None for one in results)
    open_cells = sum(cells.status(one) == "unfinished" for one in results)
    yield ""
    yield (
        f"{len(results)} cells: {stored} answered from the store (their recorded seconds are shown), "
        f"{errors} in error, {open_cells} not run"
    )
    for path in (files.leaderboard_csv, files.cells_csv, files.classes_csv, files.published_csv, files.markdown):
        if path is not None:
            yield f"written: {path}"
    yield f"check every stored example again: gauntlet verify {run.root}"
