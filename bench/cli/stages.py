"""`gauntlet stages`: a cascade of stages chosen by gain."""

from __future__ import annotations

from pathlib import Path

import click

from gauntlet.bench.cli.shared.options import (
    CONDITIONS,
    command,
    conditions_argument,
    load_plugins_named,
    networks_option,
    option,
    plugin_option,
)


@command(
    "stages",
    arguments=CONDITIONS,
    failed="An attack failed, or a file cannot be read.",
)
@conditions_argument()
@networks_option()
@option(
    "--candidates",
    group="attack",
    multiple=True,
    metavar="ATTACK",
    help="Candidate, a native attack with settings; can be repeated. [default: those of docs/attacks.md]",
)
@option("--samples", group="data", type=int, default=200, metavar="N", help="Number of images of each network.")
@option("--seed", group="attack", type=int, default=0, metavar="N", help="Seed of the attacks.")
@plugin_option()
def stages(
    patterns: tuple[str, ...],
    networks: Path | None,
    candidates: tuple[str, ...],
    samples: int,
    seed: int,
    plugins: tuple[str, ...],
) -> None:
    """Choose the stages of a cascade by their gain.

    The next stage is always the one that breaks most new samples for each pass, on half of the networks of
    `gauntlet strength` and on images that it does not use. The cascade is tested on the other half.
    """
    from gauntlet.bench.strength.build_cascade import CANDIDATES, BuildConfig, build_cascade
    from gauntlet.bench.strength.conditions import choose_conditions

    load_plugins_named(plugins)
    setup = BuildConfig(choose_conditions(patterns), candidates or CANDIDATES, networks, samples, seed)
    click.echo(build_cascade(setup, lambda line: click.echo(line, err=True)))
