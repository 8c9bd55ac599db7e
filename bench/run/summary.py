"""The summary of a run: writes the leaderboard's files, and gives the lines to print."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gauntlet.bench.environment.stopwatch import process_age
from gauntlet.bench.run.named_code import named_code
from gauntlet.bench.run.run_folder import Run, load_run
from gauntlet.bench.run.tables import write_leaderboard, write_run_page
from gauntlet.leaderboard.page.assets import PageMissingError, missing
from gauntlet.leaderboard.report.notes import Surface, wrapped
from gauntlet.leaderboard.report.profile_report import PROFILE, profile_lines, write_profile
from gauntlet.leaderboard.report.terminal import describe_references, terminal_report, terminal_width
from gauntlet.leaderboard.results.errors import StoreError, WriteError
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.results.summary import CellSummary
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.references import references


@dataclass(frozen=True)
class Summary:
    """The lines to print at the end of a run."""

    lines: tuple[str, ...]
    problem: str = ""
    """Why the leaderboard could not be written, or its results not be read, with the way out; the run then fails."""


def summary(run: Run | Path, surface: Surface = "command line", *, profile: bool = False) -> Summary:
    """Write the leaderboard of a run, or of the run in a folder. Its lines are given, too, where its files cannot be written.

    `surface`: where the lines are read, which decides how options are named. `profile`: also say where the seconds went, and
    write `profile.csv`.
    """
    try:
        run = run if isinstance(run, Run) else load_run(run)
        results = run.summaries(anew=True)
        lines = [*_figures(run, results, surface)]
    except (StoreError, ValueError, OSError) as error:
        return Summary((), f"the leaderboard could not be written: {error}")
    try:
        files = write_leaderboard(run, results)
        if profile:
            write_profile(run.root / PROFILE, results)
        page, no_page = _page(run, results)
    except (WriteError, StoreError) as error:
        return Summary(tuple(lines), f"the leaderboard could not be written: {error}")
    written = (files.leaderboard_csv, files.cells_csv, files.classes_csv, files.published_csv, files.markdown, page)
    lines += [f"written: {path}" for path in written if path is not None]
    if no_page:
        lines.append(f"no page was written: {visible(no_page)}")
    if profile:
        lines += [*profile_lines(results, process_age()), f"written: {run.root / PROFILE}"]
    trust = " --trust" if named_code(run) else ""
    return Summary((*lines, f"verify every stored example: gauntlet verify {run.root}{trust}"))


def _page(run: Run, results: Sequence[CellSummary]) -> tuple[Path | None, str]:
    """The page that was written, or why what it needs is missing, which fails no run. Raises WriteError, StoreError."""
    if lacking := missing():
        return None, lacking
    try:
        return write_run_page(run, results), ""
    except PageMissingError as error:
        return None, str(error)


def _figures(run: Run, results: Sequence[CellSummary], surface: Surface) -> Iterator[str]:
    """The leaderboard, its published figures, and the number of cells."""
    table = build_rows(results)
    yield from terminal_report(table, surface, terminal_width(), checks=run.context.checks)
    if lines := list(describe_references(references(table, run.published()))):
        yield ""
        yield from wrapped([visible(line) for line in lines], terminal_width())
    stored = sum(result.cached for result in results)
    errors = sum(result.error is not None for result in results)
    unfinished = sum(result.status == "unfinished" for result in results)
    yield ""
    cells_named = f"{len(results)} cell{'' if len(results) == 1 else 's'}"
    yield (
        f"{cells_named}: {stored} answered from the store (their recorded seconds are shown), {errors} in error, "
        f"{unfinished} not run"
    )
