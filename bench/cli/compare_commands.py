"""The commands `gauntlet compare` and `gauntlet bisect`. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

from pathlib import Path

import click

from gauntlet.bench.environment.exit_codes import EPILOG


@click.command(epilog=EPILOG)
@click.argument("folders", metavar="RUN…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", default="*", help="Models to compare, a pattern such as 'cnn.*'.", metavar="PATTERN")
@click.option("--defense", default="*", help="Defenses to compare, a pattern.", metavar="PATTERN")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "csv", "json"]),
    default="text",
    show_default=True,
    help="csv has a line for each pair, json everything.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write instead.", metavar="FILE")
def compare(folders: tuple[Path, ...], model: str, defense: str, form: str, out: Path | None) -> None:
    """Compare models and defenses, pair by pair, on the same samples.

    RUN is a results folder (its latest run) or one of its runs/… folders; the rows of all runs are put together. Prints
    differences of robust accuracy with intervals, adjusted p-values, ranks, and which attack broke what. Rows of other data,
    samples, threat models or attacks are not compared, and the reason is told.
    """
    from gauntlet.bench.cli.comparing import compared_text

    text = compared_text(folders, model, defense, form)
    if out is None:
        click.echo(text, nl=False)
        return
    from gauntlet.leaderboard.results.atomic_files import replace_text

    replace_text(out, text)
    click.echo(f"written: {out}")


@click.command(epilog=EPILOG)
@click.argument("folders", metavar="RUN…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--sample", help="Show what became of one sample, by its id.", metavar="ID")
@click.option("--model", default="*", help="Models to trace, a pattern such as 'cnn.*'.", metavar="PATTERN")
@click.option("--defense", default="*", help="Defenses to trace, a pattern.", metavar="PATTERN")
@click.option("--attack", default="*", help="Attacks to trace, a pattern.", metavar="PATTERN")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--repo",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=".",
    show_default="the working folder",
    help="Repository that knows the commits.",
    metavar="FOLDER",
)
def bisect(folders: tuple[Path, ...], sample: str | None, form: str, repo: Path, **patterns: str) -> None:
    """Tell which commit lost which samples, from what is stored; nothing is run.

    A results folder keeps what every run in it gave, at every commit. For each cell of RUN (a results folder's latest run, or
    one of its runs/… folders) the stored versions are put in the order of the git history and compared sample by sample.
    """
    from gauntlet.bench.cli.bisecting import bisected_text
    from gauntlet.bench.run.pictures import Patterns

    click.echo(bisected_text(folders, Patterns(**patterns), sample, form, repo), nl=False)
