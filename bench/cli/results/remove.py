"""`gauntlet remove`: models left out of the tables of a results folder, and shown again."""

from __future__ import annotations

from pathlib import Path

import click

from gauntlet.bench.cli.shared.options import command, option, run_option


@command(
    arguments={"MODEL…": "Models as the tables name them, or patterns such as 'cnn.*'."},
    failed="A file cannot be written.",
)
@click.argument("models", metavar="MODEL…", nargs=-1, required=True)
@run_option("out", help="Results folder.", default="gauntlet-results")
@option("--undo", group="model", is_flag=True, help="Show models again that were removed.")
def remove(models: tuple[str, ...], out: str, undo: bool) -> None:
    """Leave models out of the tables of `gauntlet leaderboard`.

    Their results stay in the folder; --undo shows the models again.
    """
    from gauntlet.bench.results_folder.removed_models import remove_models, restore_models

    found = (restore_models if undo else remove_models)(Path(out), models)
    click.echo(f"{'shown again' if undo else 'removed'}: {', '.join(found)}")
    click.echo(f"write the tables: gauntlet leaderboard {out}")
