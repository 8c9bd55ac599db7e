"""`gauntlet strength`: the cascades beside the authors' AutoAttack on fixed networks."""

from __future__ import annotations

from pathlib import Path

import click

from gauntlet.bench.cli.shared.options import (
    CONDITIONS,
    RESUMABLE,
    command,
    conditions_argument,
    networks_option,
    option,
)


@command(
    arguments=CONDITIONS,
    failed="An attack failed, or a file cannot be read or written.",
    interrupted="Interrupted: what was measured before is written; the same command goes on from there.",
    exits=RESUMABLE,
)
@conditions_argument()
@networks_option()
@option(
    "--attacks",
    group="attack",
    multiple=True,
    metavar="ATTACK",
    help="Attack to measure; can be repeated. [default: gauntlet:fast, gauntlet, gauntlet:thorough]",
)
@option(
    "--seed",
    "seeds",
    group="attack",
    multiple=True,
    type=int,
    metavar="N",
    help="Seed of the attacks; can be repeated. [default: 0 and 1]",
)
@option(
    "--autoattack",
    group="attack",
    is_flag=True,
    help="Measure the reference itself: the authors' AutoAttack, seed 0. Takes hours and needs pyautoattack.",
)
@option(
    "--stored",
    group="attack",
    is_flag=True,
    help="Compare what the file of measurements holds, and measure nothing.",
)
@option(
    "--reference",
    group="output",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Measurements of AutoAttack to compare with. [default: the included ones]",
)
@option(
    "--measurements",
    group="output",
    type=click.Path(path_type=Path, dir_okay=False),
    default="gauntlet-strength.csv",
    metavar="FILE",
    help="File of the measurements; what it holds is not measured again.",
)
def strength(
    patterns: tuple[str, ...],
    networks: Path | None,
    attacks: tuple[str, ...],
    seeds: tuple[int, ...],
    autoattack: bool,
    stored: bool,
    reference: Path | None,
    measurements: Path,
) -> None:
    """Compare the cascades with the authors' AutoAttack.

    They are compared sample by sample. Networks, threat models and samples are fixed, and AutoAttack's results are
    included, so that they need not be computed again.
    """
    from gauntlet.bench.strength.conditions import choose_conditions
    from gauntlet.bench.strength.measurements import REFERENCE, read_measurements
    from gauntlet.bench.strength.report import report
    from gauntlet.bench.strength.run_strength import AUTOATTACK, CASCADES, StrengthConfig, run_strength

    if autoattack and (attacks or seeds):
        raise click.UsageError("--autoattack has its own attack and seed: leave out --attacks and --seed")
    if stored and not measurements.is_file():
        raise click.UsageError(f"--stored: there is no file {str(measurements)!r}, name one with --measurements")
    conditions = choose_conditions(patterns)
    if stored:
        made = read_measurements(measurements)
    else:
        chosen = ((AUTOATTACK,), (0,)) if autoattack else (attacks or CASCADES, seeds or (0, 1))
        setup = StrengthConfig(conditions, *chosen, networks)
        made = run_strength(setup, measurements, lambda line: click.echo(line, err=True))
    if not autoattack:
        click.echo(report(made, read_measurements(reference or REFERENCE), conditions))
