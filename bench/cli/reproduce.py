"""`gauntlet reproduce`: a published figure, measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gauntlet.bench.cli.shared.options import RESUMABLE, command, run_option
from gauntlet.bench.environment.exit_codes import EXIT_FAILED


@command(
    arguments={
        "MODEL": "robustbench:NAME, another model whose card has published figures, or the model of a [[published]] table."
    },
    exits=RESUMABLE,
    failed="The figures differ, or the attack failed.",
)
@click.argument("model")
@run_option("data", help="The published data set, or its folder or file. [default: as published]")
@run_option("samples", help="Samples to evaluate, such as 500. [default: as published]")
@run_option("threat", multiple=False, help="Threat model, if several are published. [default: the first]")
@run_option("attacks", multiple=False, help="Attack to run. [default: the published one, if it is AutoAttack]")
@run_option("seed")
@run_option("out")
@run_option("device")
@run_option("batch-size")
def reproduce(model: str, **options: Any) -> None:
    """Measure a published robust accuracy again.

    The protocol is the published one, and the output says whether the figures agree.
    """
    from gauntlet.bench.compare import reproduce as reproducing

    folder = Path.cwd()
    name, published = reproducing.choose_figure(model, options, folder)
    config = reproducing.protocol_config(name, published, options, folder)
    found, out = reproducing.reproduce(config, published, lambda count: None)
    for line in reproducing.describe_reproduction(found):
        click.echo(line)
    click.echo(f"written: {out / 'leaderboard.md'}")
    if not found.covered:
        raise SystemExit(EXIT_FAILED)
