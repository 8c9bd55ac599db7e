"""`gauntlet bisect`: the commits that lost samples."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gauntlet.bench.cli.shared.options import command, option
from gauntlet.bench.environment.exit_codes import EXIT_PASSED, EXIT_USAGE


@command(
    arguments={"RUN…": "One or more results folders (the latest run of each), or runs/… folders."},
    exits=(EXIT_PASSED, EXIT_USAGE),
)
@click.argument("folders", metavar="RUN…", nargs=-1, required=True, type=click.Path(path_type=Path))
@option("--model", group="model", default="*", metavar="PATTERN", help="Models to trace, such as 'cnn.*'.")
@option("--defense", group="model", default="*", metavar="PATTERN", help="Defenses to trace.")
@option("--sample", group="data", metavar="ID", help="Show the history of the sample with this id. [default: none]")
@option("--attack", group="attack", default="*", metavar="PATTERN", help="Attacks to trace.")
@option(
    "--format",
    "form",
    group="output",
    type=click.Choice(["text", "json"]),
    default="text",
    help="Output format.",
)
@option(
    "--repo",
    group="configuration",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=".",
    metavar="FOLDER",
    help="Git repository with the commits of the runs.",
)
def bisect(folders: tuple[Path, ...], sample: str | None, form: str, repo: Path, **patterns: str) -> None:
    """Find the commit that lost each sample, from stored results.

    A results folder keeps the results of every run at
    every commit. For each cell of RUN its stored versions are ordered by the git history and compared sample by sample.
    """
    from gauntlet.bench.compare.bisect import bisect_runs
    from gauntlet.bench.run.pictures import Patterns
    from gauntlet.leaderboard.compare.bisection_report import bisection_json, bisection_text, sample_text

    found = bisect_runs(folders, Patterns(**patterns), repo)
    if form == "json":
        text = json.dumps(bisection_json(found, sample), indent=1, allow_nan=False) + "\n"
    else:
        text = bisection_text(found) if sample is None else sample_text(found, sample)
    click.echo(text, nl=False)
