"""Writing the page of a results folder over all its runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

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
from gauntlet.bench.run.named_code import refuse_code
from gauntlet.bench.run.pictures import Gallery, NoPictureError, Patterns, TableRow
from gauntlet.bench.run.run_folder import Run
from gauntlet.bench.run.tables import details_of, row_commands
from gauntlet.leaderboard.page.assets import PageMissingError, missing
from gauntlet.leaderboard.page.content import PageContent, RowKey
from gauntlet.leaderboard.page.details import PictureColumn, RowDetails
from gauntlet.leaderboard.page.pictures import picture_columns
from gauntlet.leaderboard.page.write_page import write_page
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.rows.worst_case import row_key

MOST_BYTES: Final = 12_000_000
"""Length of all pictures together from which on rows have none."""


def write_joint_page(
    folder: Path, run_id: str | None = None, *, gallery: int = 0, plugins: tuple[str, ...] = (), trust: bool = False
) -> Iterator[str]:
    """Write the page of the compatible runs of a results folder, or of one run, and yield lines on what it holds.

    `gallery`: number of adversarial examples of each row that are shown as pictures, which needs the data of the runs; `plugins`
    replace those of the runs. Raises PageMissingError, RunError, DescriptionError, StoreError and WriteError; with a gallery
    UntrustedCodeError where data or plugins are code, unless `trust`.
    """
    if lacking := missing():
        raise PageMissingError(lacking)
    runs = shown_runs(folder, run_id)
    root, removed = runs.newest.root, removed_models(runs.newest.root)
    fill_summaries(runs.shown)
    taken = row_runs(runs)
    known = {run.folder: details_of(run) for run in runs.shown}
    commands = {run.folder: row_commands(run) for run in runs.shown}
    pictures = _Pictures([replace(run, plugins=plugins or run.plugins) for run in runs.shown], gallery)
    if gallery:
        for run in pictures.runs:
            refuse_code(run, trust=trust, by_hand=bool(plugins), models=False)

    def details(key: RowKey) -> RowDetails:
        found = known[taken[key].folder](key)
        return replace(found, pictures=pictures.of(key, taken[key])) if gallery else found

    content = PageContent(
        results=joint_summaries(runs, tuple(removed)),
        context=joint_run(runs).context,
        published=joint_published(runs),
        models=read_descriptions(root),
        details=details,
        commands={key: commands[run.folder][key] for key, run in taken.items()},
    )
    path = write_page(root, content)
    yield f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)"
    yield from (visible(line) for line in pictures.notes)
    if len(runs.shown) > 1:
        yield f"{len(runs.shown)} runs together; one alone: --run {', --run '.join(one.folder.name for one in runs.shown)}"
    yield from (visible(line) for line in describe_others(runs, root, "page"))
    if removed:
        yield visible(f"removed: {', '.join(removed)} (shown again by `gauntlet remove --undo`)")


class _Pictures:
    """The pictures of rows, as long as all of them together are not too many bytes."""

    def __init__(self, runs: Sequence[Run], most: int) -> None:
        self.runs, self.most = runs, most
        self.notes: list[str] = []
        self._bytes = 0
        self._galleries: dict[Path, tuple[Gallery, dict[RowKey, TableRow]]] = {}

    def of(self, key: RowKey, run: Run) -> tuple[PictureColumn, ...]:
        """The pictures of a row; none where it has no examples, or where they cannot be shown, of which there is then a note."""
        if self._bytes > MOST_BYTES:
            return ()
        gallery, rows = self._gallery(run)
        if key not in rows:
            return ()
        try:
            made = picture_columns(gallery.examples(rows[key], self.most), rows[key].cells[0].info.classes)
        except (NoPictureError, LookupError, OSError, ValueError) as error:
            self.notes.append(f"no pictures of {' × '.join(key[:2])}, {key[2]}: {error}")
            return ()
        self._bytes += sum(len(one.clean) + len(one.perturbation) + len(one.adversarial) for one in made)
        if self._bytes > MOST_BYTES:
            self.notes.append(
                f"rows after {' × '.join(key[:2])}, {key[2]} have no pictures: --gallery with a smaller number"
            )
        return made

    def _gallery(self, run: Run) -> tuple[Gallery, dict[RowKey, TableRow]]:
        if run.folder not in self._galleries:
            (own,) = (one for one in self.runs if one.folder == run.folder)
            gallery = Gallery(own)
            rows = {row_key(row.cells[0].info): row for row in gallery.rows(Patterns())}
            self._galleries[run.folder] = gallery, rows
        return self._galleries[run.folder]
