"""`gauntlet gate-costs`: the passes that a gate costs."""

from __future__ import annotations

from pathlib import Path

import click

from gauntlet.bench.cli.shared.options import command, option

DEFAULT_MODELS = ("cnn.trades_digits", "cnn.pgd_digits")


@command(
    "gate-costs",
    arguments={"MODELS": f"Embedded models. [default: {' '.join(DEFAULT_MODELS)}]"},
    failed="A file cannot be written.",
)
@click.argument("models", metavar="[MODELS…]", nargs=-1)
@option(
    "--out",
    group="output",
    default="gauntlet-gate-costs",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder for the tables.",
)
def gate_costs(models: tuple[str, ...], out: Path) -> None:
    """Measure the passes that a gate costs.

    They are given as a share of those of a full run, for each model unchanged and after several changes. Takes some minutes.
    """
    from gauntlet.bench.speed.gate_costs import measure_gate_costs

    click.echo(measure_gate_costs(models or DEFAULT_MODELS, out, lambda line: click.echo(line, err=True)))
    click.echo(f"written: {out / 'gate-costs.md'}, {out / 'gate-costs.csv'}")
