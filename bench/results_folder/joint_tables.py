"""Writing the tables of a results folder over all its runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gauntlet.bench.results_folder.all_runs import (
    describe_others,
    joint_published,
    joint_run,
    joint_summaries,
    shown_runs,
)
from gauntlet.bench.results_folder.fill_summaries import fill_summaries
from gauntlet.bench.results_folder.joint_page import write_joint_page
from gauntlet.bench.results_folder.kept_tables import keep_table
from gauntlet.bench.results_folder.model_descriptions import read_descriptions, unknown_models
from gauntlet.bench.results_folder.other_weights import other_weights
from gauntlet.bench.results_folder.removed_models import removed_models
from gauntlet.bench.results_folder.table_formats import ALWAYS, earlier_files, write_formats
from gauntlet.leaderboard.report.leaderboard_files import write_leaderboard_files
from gauntlet.leaderboard.report.model_table import same_weights
from gauntlet.leaderboard.report.terminal import terminal_report, terminal_width
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.results.summary import newest_commit


def write_joint_tables(folder: Path, run_id: str | None = None, formats: Sequence[str] = ALWAYS) -> Iterator[str]:
    """Write the tables of the compatible runs of a results folder, or of one run; yield them as text, then lines on the files.

    Everything is written before the first line is yielded, so that a reader who stops early loses no file.
    `formats`: of `FORMATS`; CSV and Markdown are written anyway. Raises RunError, DescriptionError, StoreError and WriteError;
    PageMissingError and LatexMissingError where what a format needs is not installed.
    """
    runs = shown_runs(folder, run_id)
    root, run = runs.newest.root, joint_run(runs)
    removed, described = removed_models(root), read_descriptions(root)
    fill_summaries(runs.shown)
    results = joint_summaries(runs, tuple(removed))
    shown = dict.fromkeys(result.cell.model for result in results)
    models = [described[model] for model in shown if model in described]
    published = joint_published(runs)
    files = write_leaderboard_files(root, results, run.context, published, models)
    written = write_formats(root, formats, results, run.context, published, models)
    # The first line names the file; the others are those of the tables.
    page = [next(write_joint_page(folder, run_id))] if "html" in formats else []
    change = keep_table(root, run.context.started, newest_commit(results))
    yield from terminal_report(files.rows, "command line", terminal_width(), checks=run.context.checks)
    yield ""
    paths = (files.leaderboard_csv, files.cells_csv, files.classes_csv, files.markdown, files.models_csv)
    yield from (f"written: {path}" for path in paths if path is not None)
    yield from (f"written: {path}" for path in written)
    yield from page
    yield from earlier_files(root, formats)
    if len(runs.shown) > 1:
        yield f"{len(runs.shown)} runs together; one alone: --run {', --run '.join(one.folder.name for one in runs.shown)}"
    yield from (visible(line) for line in describe_others(runs, root, "leaderboard"))
    if removed:
        yield visible(f"removed: {', '.join(removed)} (shown again by `gauntlet remove --undo`)")
    yield from (visible(line) for line in [*same_weights(results), *other_weights(runs)])
    known = frozenset(cell.info.model for one in (*runs.shown, *runs.others) for cell in one.plan.cells)
    yield from (visible(line) for line in unknown_models(described, known))
    if change is not None:
        yield from change.lines
