"""`gauntlet page`: the leaderboard of a results folder as one HTML file."""

from __future__ import annotations

from pathlib import Path

import click

from gauntlet.bench.cli.shared.options import command, option, plugin_option, trust_option


@command(
    arguments={"RUN": "Results folder (all its runs that ask compatible questions), or one of its runs/… folders."},
    failed="A file cannot be read or written, or the extra `page` is not installed.",
)
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@option("--run", "run_id", group="output", metavar="ID", help="Show this run alone. [default: all compatible runs]")
@option(
    "--gallery",
    group="output",
    type=click.IntRange(0, 8),
    default=0,
    metavar="N",
    help="Number of adversarial examples of each row to show as pictures, which needs the data of the run.",
)
@plugin_option()
@trust_option()
def page(folder: Path, run_id: str | None, gallery: int, plugins: tuple[str, ...], trust: bool) -> None:
    """Write the leaderboard of all runs of a folder as one HTML file.

    leaderboard.html needs no network and no other file: a table to sort, search and filter, a page for each row with its
    attacks, flags, costs and provenance, and charts. It can be read without JavaScript. Needs the extra `page`.
    """
    from gauntlet.bench.results_folder.joint_page import write_joint_page

    for line in write_joint_page(folder, run_id, gallery=gallery, plugins=plugins, trust=trust):
        click.echo(line)
