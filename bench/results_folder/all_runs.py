"""The tables of all runs of a results folder that ask compatible questions.

A question is a threat model on some samples of some data. Runs that share one are compatible, and so are those that share
one with these. Of a row (a model behind a defense, under a threat model, data and suite) that several runs asked for, that of
the newest counts, whole: cells of other runs may be of other weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gauntlet.bench.planning.plan import Plan
from gauntlet.bench.run.run_folder import Run, RunError, load_run
from gauntlet.leaderboard.report.markdown_writer import RunContext
from gauntlet.leaderboard.results.published_figure import PublishedFigure
from gauntlet.leaderboard.results.summary import CellSummary
from gauntlet.leaderboard.rows.worst_case import row_key

Question = tuple[str, str, str]
"""Data, samples and threat model, as they were asked for."""


@dataclass(frozen=True)
class ShownRuns:
    """The runs of a folder whose rows are shown together, newest first, and the runs that ask other questions."""

    shown: tuple[Run, ...]
    others: tuple[Run, ...]

    @property
    def newest(self) -> Run:
        """The run that was started last."""
        return self.shown[0]


def runs_of(root: Path) -> list[Run]:
    """All runs of a results folder, the latest first: that of `latest-run.json`, then by when they were started.

    Raises RunError.
    """
    latest = load_run(root)
    folders = sorted(path.parent for path in (latest.root / "runs").glob("*/run.json"))
    others = [load_run(folder) for folder in folders if folder.name != latest.folder.name]
    return [latest, *sorted(others, key=lambda run: run.context.started, reverse=True)]


def shown_runs(folder: Path, run_id: str | None = None) -> ShownRuns:
    """The runs to show of a results folder, or of a `runs/…` folder, which is one run.

    `run_id`: the beginning of the name of the run to show alone. Raises RunError.
    """
    if (folder / "run.json").is_file():
        if run_id is not None and not folder.resolve().name.startswith(run_id):
            raise RunError(f"--run {run_id!r} is not the run {folder}: give its results folder")
        return ShownRuns((load_run(folder),), ())
    runs = runs_of(folder)
    if run_id is not None:
        return ShownRuns((_named(runs, run_id, folder),), ())
    shown, questions = [runs[0]], questions_of(runs[0])
    others = runs[1:]
    while more := [run for run in others if questions & questions_of(run)]:
        shown += more
        questions = questions.union(*map(questions_of, more))
        others = [run for run in others if run not in more]
    return ShownRuns(tuple(sorted(shown, key=runs.index)), tuple(others))


def run_folder_of(folder: Path, run_id: str | None) -> Path:
    """The folder of the run whose name begins with `run_id`; without one `folder`, whose latest run is meant. Raises RunError."""
    return folder if run_id is None else shown_runs(folder, run_id).newest.folder


def questions_of(run: Run) -> frozenset[Question]:
    """The questions of a run."""
    return frozenset((cell.data.spec, cell.data.samples or "", str(cell.threat)) for cell in run.plan.cells)


def describe_others(runs: ShownRuns, root: Path, command: str) -> list[str]:
    """A line for each run that asks other questions, with the command that shows it: `leaderboard` or `page`."""
    return [
        f"not shown, other data, samples or threat models: {', '.join(sorted(map(_words, questions_of(run))))}: "
        f"gauntlet {command} {root} --run {run.folder.name}"
        for run in runs.others
    ]


def joint_summaries(runs: ShownRuns, removed: Sequence[str] = ()) -> list[CellSummary]:
    """The cells of all shown runs, those of the oldest run first, without models of these names. Raises StoreError.

    Of a row that several runs asked for, the newest run's cells are taken.
    """
    taken = row_runs(runs)
    return [
        run.summary(cell)
        for run in reversed(runs.shown)
        for cell in run.plan.cells
        if taken[row_key(cell.info)] is run and cell.info.model not in removed
    ]


def row_runs(runs: ShownRuns) -> dict[tuple[str, str, str, str, str], Run]:
    """The run whose cells are taken for each row: the newest one that asked for it."""
    taken: dict[tuple[str, str, str, str, str], Run] = {}
    for run in runs.shown:
        for cell in run.plan.cells:
            taken.setdefault(row_key(cell.info), run)
    return taken


def joint_run(runs: ShownRuns) -> Run:
    """The newest run, with the threat models, data and commands of all of them for the report."""
    newest = runs.newest
    contexts = [run.context for run in reversed(runs.shown)]
    context: RunContext = replace(
        newest.context,
        threat_models=tuple(dict.fromkeys(threat for one in contexts for threat in one.threat_models)),
        data=", ".join(dict.fromkeys(one.data for one in contexts)),
        command="\n".join(dict.fromkeys(one.command for one in contexts if one.command)),
    )
    cells = tuple(cell for run in reversed(runs.shown) for cell in run.plan.cells)
    return replace(newest, plan=Plan(cells), context=context)


def joint_published(runs: ShownRuns) -> list[tuple[str, PublishedFigure]]:
    """The published figures of all shown runs, each once. Raises StoreError."""
    return list(dict.fromkeys(figure for run in runs.shown for figure in run.published()))


def _named(runs: Sequence[Run], run_id: str, folder: Path) -> Run:
    found = [run for run in runs if run.folder.name.startswith(run_id)]
    if len(found) != 1:
        known = ", ".join(run.folder.name for run in runs)
        raise RunError(
            f"--run {run_id!r} names {'no run' if not found else 'several runs'} of {folder}: it has {known}"
        )
    return found[0]


def _words(question: Question) -> str:
    data, samples, threat = question
    return f"{threat} on {data}{f'[{samples}]' if samples else ''}"
