"""`gauntlet sweep`: an attack over its settings."""

from __future__ import annotations

from typing import Any

import click

from gauntlet.bench.cli.shared.options import RESUMABLE, command, option, run_options
from gauntlet.bench.environment.exit_codes import EXIT_FAILED


@command(exits=RESUMABLE, failed="A cell ended in an error.")
@option(
    "--attack",
    group="attack",
    required=True,
    metavar="ATTACK",
    help="Attack, with the settings that stay fixed in brackets: 'pgd(loss=cw)'.",
)
@option(
    "--over",
    group="attack",
    multiple=True,
    required=True,
    metavar="NAME=V,V…",
    help="Setting to vary (or eps) and its values. May be repeated.",
)
@option(
    "--seeds", group="attack", default=1, metavar="N", help="Number of seeds, from --seed on; the worst case counts."
)
@run_options(
    single=("model", "defense", "threat"),
    without=("attacks", "out", "gate", "gate-early", "no-gate", "allow-undecided", "ray", "gpus-per-task"),
)
@option("--out", group="output", default="gauntlet-sweep", metavar="FOLDER", help="Folder for the results.")
def sweep(attack: str, over: tuple[str, ...], seeds: int, **options: Any) -> None:
    """Measure robust accuracy as the settings of an attack grow.

    The report says where it stops falling. A sweep has one model, one defense and one threat model. The same command resumes
    it. Example:

    gauntlet sweep --model cnn.trades_digits --attack pgd --over steps=5,10,20,40,80
    """
    from gauntlet.bench.sweep.grid import SweepError, parse_axis
    from gauntlet.bench.sweep.run_sweep import run_sweep, sweep_config, write_sweep
    from gauntlet.leaderboard.results.escape import visible

    axes = [parse_axis(text) for text in over]
    if seeds < 1:
        raise SweepError(f"--seeds {seeds} must be at least 1")
    config = sweep_config(options, attack, axes)
    found = run_sweep(config, attack, axes, seeds, lambda line: click.echo(line, err=True))
    for line in write_sweep(config.out, found):
        click.echo(line)
    for failure in found.failures:
        click.echo(f"PROBLEM {visible(failure)}", err=True)
    if found.failures:
        raise SystemExit(EXIT_FAILED)
