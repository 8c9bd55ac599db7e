"""`gauntlet leaderboard`: the tables of a results folder, over all its runs or one."""

from __future__ import annotations

from pathlib import Path

import click

from gauntlet.bench.cli.shared.options import command, option


@command(
    arguments={"RUN": "Results folder (all its runs that ask compatible questions), or one of its runs/… folders."},
    failed="A file cannot be read or written.",
)
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@option("--run", "run_id", group="output", metavar="ID", help="Show this run alone. [default: all compatible runs]")
@option(
    "--format",
    "formats",
    group="output",
    default="csv,md",
    metavar="F,F…",
    help="Formats: html (as `gauntlet page`), json (leaderboard.json), latex (leaderboard.tex); csv and md are written always.",
)
def leaderboard(folder: Path, run_id: str | None, formats: str) -> None:
    """Print and write the tables of all runs of a folder.

    Runs are compatible if they ask for a threat model on the same samples of the same data; of a row that several runs
    asked for, the newest run's counts. The tables are leaderboard.csv, cells.csv, classes.csv and leaderboard.md. Each is
    kept below tables/, and the output says which rows are new, gone or re-ranked since the last. models.toml describes
    models (docs/scale.md), `gauntlet remove` leaves them out.
    """
    from gauntlet.bench.results_folder.joint_tables import write_joint_tables
    from gauntlet.bench.results_folder.table_formats import parse_formats

    for line in write_joint_tables(folder, run_id, parse_formats(formats)):
        click.echo(line)
