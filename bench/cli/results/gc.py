"""`gauntlet gc`: blocks that no run asks for removed."""

from __future__ import annotations

from pathlib import Path

import click

from gauntlet.bench.cli.shared.options import command, option


@command(arguments={"FOLDER": "Results folder."}, failed="A file cannot be read, removed or written.")
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@option("--history", group="output", is_flag=True, help="Remove blocks too that only earlier commits asked for.")
@option("--dry-run", group="output", is_flag=True, help="Say what would be removed, and remove nothing.")
def gc(folder: Path, history: bool, dry_run: bool) -> None:
    """Remove stored blocks that no run of a folder asks for.

    Blocks that earlier commits asked for stay, since `gauntlet bisect` compares them, unless --history is given. Run it while
    nothing else writes into the folder.
    """
    from gauntlet.bench.results_folder.collect import collect

    found = collect(folder, history=history, dry=dry_run)
    what = "would be removed" if dry_run else "removed"
    click.echo(f"{found.blocks} blocks, {found.size / 2**20:.1f} MiB {what}; {found.kept} blocks kept")
