"""The command `gauntlet reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gauntlet.bench.environment.exit_codes import EXIT_FAILED


@click.command(
    epilog="Exit codes: 0 reproduced; 1 the figures differ, or the attack failed; 2 wrong usage, or nothing is published; "
    "130 interrupted (run the same command again to resume)."
)
@click.argument("model")
@click.option("--data", help="The published data set, or where it lies (default: what is published).", metavar="DATA")
@click.option("--samples", help="Fewer samples than the published ones, such as 500.", metavar="SAMPLES")
@click.option("--threat", help="Which of several published threat models.", metavar="THREAT")
@click.option("--attacks", help="The attack that stands for the published one (default autoattack).", metavar="ATTACK")
@click.option("--seed", type=int, help="Seed of the attack's random numbers (default 0).", metavar="N")
@click.option("--device", help="auto, cpu, cuda or cuda:1 (default auto).", metavar="DEVICE")
@click.option("--batch-size", type=int, help="Samples attacked at once.", metavar="N")
@click.option("--out", help="Folder of the results (default gauntlet-results).", metavar="FOLDER")
def reproduce(model: str, **options: Any) -> None:
    """Measure a published robust accuracy again, by its own protocol, and say whether the figures agree.

    MODEL is `robustbench:NAME`, another model whose card states figures, or one of a [[published]] table.
    """
    from gauntlet.bench.compare import reproduce as reproducing

    folder = Path.cwd()
    name, one = reproducing.chosen(model, options, folder)
    config = reproducing.protocol(name, one, options, folder)
    found, out = reproducing.reproduce(config, one, lambda count: None)
    for line in reproducing.verdict(found):
        click.echo(line)
    click.echo(f"written: {out / 'leaderboard.md'}")
    if not found.covered:
        raise SystemExit(EXIT_FAILED)
