"""`gauntlet merge`: results folders joined."""

from __future__ import annotations

from pathlib import Path

import click

from gauntlet.bench.cli.shared.options import command


@command(
    arguments={
        "OUT": "Results folder to merge into; created if needed.",
        "FOLDER…": "Results folders, of any machines.",
    },
    failed="A file cannot be read or written.",
)
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path, file_okay=False))
@click.argument("folders", metavar="FOLDER…", nargs=-1, required=True, type=click.Path(path_type=Path))
def merge(out: Path, folders: tuple[Path, ...]) -> None:
    """Join results folders, without models, code or weights.

    Blocks are joined by their keys, with runs, published figures, errors and notes. Of two blocks with the same key the
    first is kept; differences between them are reported. The same command takes up a merge that was stopped.
    """
    from gauntlet.bench.results_folder.merge import merge_folders
    from gauntlet.leaderboard.results.escape import visible

    for merged in merge_folders(out, folders):
        click.echo(visible(merged.line))
        for note in merged.notes:
            click.echo(f"  {visible(note)}")
    click.echo(f"write the tables: gauntlet leaderboard {out}")
