"""Writing the page of a results folder over all its runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gauntlet.bench.results_folder.all_runs import (
    describe_others,
    joint_published,
    joint_run,
    joint_summaries,
    row_runs,
    shown_runs,
)
from gauntlet.bench.results_folder.fill_summaries import fill_summaries
from gauntlet.bench.results_folder.model_descriptions import read_descriptions
from gauntlet.bench.results_folder.removed_models import removed_models
from gauntlet.bench.run.tables import details_of
from gauntlet.leaderboard.page.assets import PageMissingError, missing
from gauntlet.leaderboard.page.content import PageContent
from gauntlet.leaderboard.page.write_page import write_page
from gauntlet.leaderboard.results.escape import visible


def write_joint_page(folder: Path, run_id: str | None = None) -> Iterator[str]:
    """Write the page of the compatible runs of a results folder, or of one run, and yield lines on what it holds.

    Raises PageMissingError, RunError, DescriptionError, StoreError and WriteError.
    """
    if lacking := missing():
        raise PageMissingError(lacking)
    runs = shown_runs(folder, run_id)
    root, removed = runs.newest.root, removed_models(runs.newest.root)
    fill_summaries(runs.shown)
    taken = row_runs(runs)
    details = {run.folder: details_of(run) for run in runs.shown}
    content = PageContent(
        results=joint_summaries(runs, tuple(removed)),
        context=joint_run(runs).context,
        published=joint_published(runs),
        models=read_descriptions(root),
        details=lambda key: details[taken[key].folder](key),
        commands={key: run.context.command for key, run in taken.items()},
    )
    path = write_page(root, content)
    yield f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)"
    if len(runs.shown) > 1:
        yield f"{len(runs.shown)} runs together; one alone: --run {', --run '.join(one.folder.name for one in runs.shown)}"
    yield from (visible(line) for line in describe_others(runs, root))
    if removed:
        yield visible(f"removed: {', '.join(removed)} (shown again by `gauntlet remove --undo`)")
