"""`gauntlet agreement`: the same attack in every installed library."""

from __future__ import annotations

from typing import Any

import click

from gauntlet.bench.cli.shared.options import RESUMABLE, command, option, run_options
from gauntlet.bench.environment.exit_codes import EXIT_FAILED


@command(
    arguments={"ROWS": "Patterns of comparisons, such as 'PGD*'. [default: all of the threat models' norms]"},
    exits=RESUMABLE,
    failed="A cell ended in an error.",
)
@click.argument("rows", metavar="[ROWS…]", nargs=-1)
@option(
    "--attacks",
    group="attack",
    multiple=True,
    metavar="ATTACK",
    help="Attacks to compare with one another, the reference first; can be repeated. [default: those of ROWS]",
)
@option(
    "--seeds",
    group="attack",
    type=click.IntRange(1, 2),
    default=1,
    metavar="N",
    help="Number of seeds; with 2 each attack is also compared with itself.",
)
@run_options(
    without=(
        "attacks",
        "out",
        "gate",
        "baseline-from",
        "gate-early",
        "no-gate",
        "allow-undecided",
        "profile",
        "ray",
        "gpus-per-task",
    )
)
@option("--out", group="output", default="gauntlet-agreement", metavar="FOLDER", help="Folder for the results.")
def agreement(rows: tuple[str, ...], attacks: tuple[str, ...], seeds: int, **options: Any) -> None:
    """Run the same attack of every installed library, and compare.

    The tables and the page show the samples on which the libraries differ, distances, passes, seconds, and what they return
    outside the ball or claim wrongly. The budget is the same in each; every example is verified. Native attacks run in float32
    and no checks are made, unless options say otherwise. The same command resumes. Example:

    gauntlet agreement 'PGD*' --model cnn.trades_digits --threat Linf:0.15 --samples 200
    """
    from gauntlet.bench.agreement.run_agreement import agreement_config, choose_rows, run_agreement
    from gauntlet.bench.agreement.write_agreement import write_agreement
    from gauntlet.leaderboard.compare.agreement_report import agreement_text
    from gauntlet.leaderboard.results.escape import visible

    config = agreement_config(options)
    threats = [threat for group in config.groups for threat in group.threats]
    chosen = choose_rows(rows, attacks, threats)
    found, context = run_agreement(config, chosen, seeds, lambda line: click.echo(line, err=True))
    for line in agreement_text(found):
        click.echo(line)
    for line in write_agreement(config.out, found, context):
        click.echo(line)
    for failure in found.failures:
        click.echo(f"PROBLEM {visible(failure)}", err=True)
    if found.failures:
        raise SystemExit(EXIT_FAILED)
