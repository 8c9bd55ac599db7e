"""`gauntlet pack`: the blocks of finished cells in one file each."""

from __future__ import annotations

from pathlib import Path

import click

from gauntlet.bench.cli.shared.options import command
from gauntlet.bench.environment.exit_codes import EXIT_FAILED


@command(arguments={"FOLDER": "Results folder."}, failed="A block is damaged, or a file cannot be written.")
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
def pack(folder: Path) -> None:
    """Pack the blocks of each finished cell into one file.

    Tables, ranks and examples stay the same. A run packs cells of ten blocks and more at their end; this command packs those
    of fewer, too, and those of earlier versions.
    """
    from gauntlet.bench.results_folder.pack import pack_folder
    from gauntlet.leaderboard.results.escape import visible

    packed, damaged = 0, False
    for cell in pack_folder(folder):
        packed += cell.pack is not None
        if cell.problem:
            damaged = True
            click.echo(
                f"not packed: {visible(cell.title)}: {visible(cell.problem)}: run the same command again to repair it"
            )
    click.echo(f"{packed} cell{'' if packed == 1 else 's'} packed")
    if damaged:
        raise SystemExit(EXIT_FAILED)
