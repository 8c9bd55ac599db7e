"""`gauntlet leaderboard`: the tables of a run, written again."""

from __future__ import annotations

from pathlib import Path

import click

from gauntlet.bench.cli.shared.options import RUN, command, run_argument


@command(arguments=RUN, failed="A file cannot be read or written.")
@run_argument()
def leaderboard(folder: Path) -> None:
    """Write the tables of a run again, from its stored results.

    The tables are leaderboard.csv, cells.csv, classes.csv and leaderboard.md.
    """
    from gauntlet.bench.run.engine import write_leaderboard
    from gauntlet.bench.run.run_folder import load_run

    run = load_run(folder)
    files = write_leaderboard(run, run.results())
    for path in (files.leaderboard_csv, files.cells_csv, files.classes_csv, files.markdown):
        click.echo(f"written: {path}")
