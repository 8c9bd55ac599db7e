"""`gauntlet show`: a stored run, the settings of its attacks, one sample of it, or its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from gauntlet.bench.cli.shared.options import RUN, command, option, plugin_option, run_argument, trust_option


@command(arguments=RUN, failed="A stored result cannot be read, or a picture cannot be written.")
@run_argument()
@option("--run", "run_id", group="data", metavar="ID", help="Show this run of the folder. [default: the latest run]")
@option("--model", group="model", default="*", metavar="PATTERN", help="Models for --attack, --pictures and --sample.")
@option(
    "--defense", group="model", default="*", metavar="PATTERN", help="Defenses for --attack, --pictures and --sample."
)
@option("--sample", group="data", metavar="ID", help="Show the results of the sample with this id. [default: none]")
@option(
    "--attack",
    group="attack",
    metavar="PATTERN",
    help="Show the settings of these attacks in full; with --pictures or --sample, the attacks to use. [default: none]",
)
@option(
    "--pictures",
    group="output",
    is_flag=True,
    help="Write pictures of every row, or of --sample, to RUN/pictures (needs matplotlib).",
)
@option(
    "--format",
    "form",
    group="output",
    type=click.Choice(["png", "svg", "pdf"]),
    default="png",
    help="Format of the pictures of rows.",
)
@plugin_option()
@trust_option()
def show(
    folder: Path,
    run_id: str | None,
    model: str,
    defense: str,
    sample: str | None,
    attack: str | None,
    pictures: bool,
    form: Literal["png", "svg", "pdf"],
    plugins: tuple[str, ...],
    trust: bool,
) -> None:
    """Show a run, the settings of its attacks, a sample, or pictures.

    A run is shown by its leaderboard and cells. --attack alone shows settings in full, which tables name by a digest if they
    are long. --sample shows the results of one sample, --pictures draws pictures instead.
    """
    from gauntlet.bench.results_folder.all_runs import run_folder_of
    from gauntlet.bench.run.describe_run import describe_attacks, describe_run, describe_sample, draw_pictures
    from gauntlet.bench.run.pictures import Patterns

    folder = run_folder_of(folder, run_id)
    chosen = Patterns(model, defense, attack or "*")
    if sample is not None:
        lines = describe_sample(folder, sample, chosen, pictures=pictures, plugins=plugins, trust=trust)
    elif pictures:
        lines = draw_pictures(folder, chosen, plugins, trust=trust, form=form)
    elif attack is not None:
        lines = describe_attacks(folder, chosen)
    elif chosen != Patterns():
        raise click.UsageError("--model and --defense apply to --attack, --pictures and --sample: add one of these")
    else:
        lines = describe_run(folder)
    for line in lines:
        click.echo(line)
