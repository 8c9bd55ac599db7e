"""`gauntlet migrate`: results folders of earlier versions lifted."""

from __future__ import annotations

from pathlib import Path

import click

from gauntlet.bench.cli.shared.options import command
from gauntlet.bench.environment.exit_codes import EXIT_FAILED


@command(
    arguments={"FOLDER": "Results folder."}, failed="A file is damaged and was left as it is, or cannot be written."
)
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
def migrate(folder: Path) -> None:
    """Lift a results folder of version 0.1 to the form of today.

    Tables, comparisons and merges then read it. Its blocks answer no new run, since what decides a block's key has changed.
    Files are replaced one at a time; a command that was stopped is taken up by the same command.
    """
    from gauntlet.bench.results_folder.migrate import migrate
    from gauntlet.leaderboard.report.formatting import counted
    from gauntlet.leaderboard.results.escape import visible

    done = migrate(folder)
    for note in done.notes:
        click.echo(visible(note))
    failures = "1 failure of a cell" if done.errors == 1 else f"{done.errors} failures of cells"
    click.echo(f"{counted(done.runs, 'run')}, {counted(done.blocks, 'block')} and {failures} lifted")
    if done.notes:
        raise SystemExit(EXIT_FAILED)
