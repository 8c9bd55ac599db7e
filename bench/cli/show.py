"""`gauntlet show`: a stored run, one sample of it, or its pictures."""

from __future__ import annotations

from pathlib import Path

import click

from gauntlet.bench.cli.options import RUN, command, option, plugin_option, run_argument


@command(arguments=RUN, failed="A stored result cannot be read, or a picture cannot be written.")
@run_argument()
@option("--model", group="model", default="*", metavar="PATTERN", help="Models for --pictures and --sample.")
@option("--defense", group="model", default="*", metavar="PATTERN", help="Defenses for --pictures and --sample.")
@option("--sample", group="data", metavar="ID", help="Show the results of the sample with this id.")
@option("--attack", group="attack", default="*", metavar="PATTERN", help="Attacks for --pictures and --sample.")
@option(
    "--pictures",
    group="output",
    is_flag=True,
    help="Write pictures of every row, or of --sample, to RUN/pictures (needs matplotlib).",
)
@plugin_option()
def show(folder: Path, pictures: bool, sample: str | None, plugins: tuple[str, ...], **patterns: str) -> None:
    """Show a run: its leaderboard and cells, a sample, or pictures.

    --sample shows the results of one sample, --pictures draws pictures instead.
    """
    from gauntlet.bench.run.describe_run import describe_run, describe_sample, draw_pictures
    from gauntlet.bench.run.pictures import Patterns

    chosen = Patterns(**patterns)
    if sample is None and not pictures and chosen != Patterns():
        raise click.UsageError("--model, --defense and --attack apply to --pictures and --sample: add one of these")
    if sample is not None:
        lines = describe_sample(folder, sample, chosen, pictures=pictures, plugins=plugins)
    else:
        lines = draw_pictures(folder, chosen, plugins) if pictures else describe_run(folder)
    for line in lines:
        click.echo(line)
