"""`gauntlet curve`: robust accuracy against eps, of several models in one picture."""

from __future__ import annotations

from pathlib import Path

import click

from gauntlet.bench.cli.shared.options import command, option


@command(
    arguments={
        "RUN…": "One or more results folders (all their runs that ask compatible questions), or runs/… folders."
    },
    failed="A file cannot be read or written, or matplotlib is not installed.",
)
@click.argument("folders", metavar="RUN…", nargs=-1, required=True, type=click.Path(path_type=Path))
@option("--model", group="model", default="*", metavar="A,B", help="Models, with wildcards, separated by commas.")
@option("--defense", group="model", default="*", metavar="PATTERN", help="Defenses.")
@option("--data", group="data", default="*", metavar="PATTERN", help="Data: one of them, where the rows have several.")
@option(
    "--norm", group="attack", metavar="NORM", help="Norm, needed where the rows have several. [default: the only one]"
)
@option(
    "--over",
    group="attack",
    metavar="eps=V,V…",
    help="These radii alone, as points. [default: exact steps of minimum-norm attacks, and every radius that was attacked]",
)
@option(
    "--out",
    group="output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Picture to write: .png, .svg or .pdf; a .csv of the same name stands beside it. [default: RUN/robust-against-eps.svg]",
)
def curve(
    folders: tuple[Path, ...],
    model: str,
    defense: str,
    data: str,
    norm: str | None,
    over: str | None,
    out: Path | None,
) -> None:
    """Draw robust accuracy against eps, from stored results.

    Minimum-norm attacks (fmn, ddn, cw, deepfool) give the accuracy at every eps, as exact steps with 95 % bands. Radii that were
    attacked are points with 95 % intervals: the worst case over all attacks, and the clean accuracy at 0. Nothing is drawn
    between points, since nothing is known there. Example:

    gauntlet curve results --model cnn.trades_digits,cnn.pgd_digits --out curve.pdf
    """
    from gauntlet.bench.results_folder.draw_eps_curves import draw_eps_curves

    patterns = [part.strip() for part in model.split(",") if part.strip()]
    for line in draw_eps_curves(folders, patterns, defense, norm, data, over, out):
        click.echo(line)
