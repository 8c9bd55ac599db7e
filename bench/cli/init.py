"""`gauntlet init`: a configuration for a model that was looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gauntlet.bench.cli.check import MODEL, look_options, looked_at, problem_exit
from gauntlet.bench.cli.shared.options import command, load_plugins_named, option


@command(arguments=MODEL, failed="The model cannot be attacked as it is, or a file cannot be written.")
@look_options
@option(
    "--ci",
    group="output",
    is_flag=True,
    help="Also write a workflow for GitHub, in which a gate compares each pull request with an accepted run.",
)
def init(ci: bool, plugins: tuple[str, ...], **options: Any) -> None:
    """Look at a model, and write a commented gauntlet.toml for it.

    The look is that of `gauntlet check`; where it finds a problem, nothing is written. Files that exist are not replaced.
    """
    from gauntlet.bench.first_look.write_config import CONFIG, REQUIREMENTS, WORKFLOW, config_files
    from gauntlet.leaderboard.results.atomic_files import replace_files

    there = [str(path) for path in (CONFIG, *((WORKFLOW, REQUIREMENTS) if ci else ())) if path.exists()]
    if there:
        raise click.UsageError(f"{', '.join(there)} exists already: delete it, or run this in another folder")
    load_plugins_named(plugins)
    found = looked_at(options)
    if found.state == "problem":
        raise SystemExit(problem_exit(found))
    if found.data is None:
        raise click.UsageError(
            "the data are not named: add --data DATA, such as FILE.npz or a folder of images by class"
        )
    files = config_files(found, options["threat"], plugins, ci=ci)
    replace_files({Path.cwd() / path: text.encode() for path, text in files.items()})
    click.echo()
    for path in files:
        click.echo(f"written: {path}")
    click.echo("next: gauntlet run")
    if ci:
        click.echo(
            "then: gauntlet baseline accept gauntlet-results --reason TEXT, and commit what it writes with the files above; in "
            f"{REQUIREMENTS} replace OWNER by the owner of Gauntlet's repository"
        )
