"""`gauntlet run --dry-run`: the plan, what is stored, and an estimate of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from gauntlet.bench.cli.shared.begin import imports, print_skipped, say
from gauntlet.bench.environment.exit_codes import EXIT_FAILED, EXIT_PASSED


def show_plan(options: Mapping[str, Any]) -> int:
    """Print the plan, what is stored and an estimate; returns the exit code."""
    from gauntlet.bench.config.schema import load_config
    from gauntlet.leaderboard.results.escape import visible

    config = load_config(options, folder=Path.cwd(), file=options.get("config"))
    if config.shard is not None:
        raise ValueError(
            f"--dry-run estimates all of a run, and --shard={config.shard} is a part: leave one of them out"
        )
    with imports(isolated=False):
        from gauntlet.bench.run.estimate import estimate
        from gauntlet.bench.run.plan_engine import plan_engine

    total, unknown, broken = 0.0, 0, 0
    with plan_engine(config, isolated=False, note=say) as engine:
        print_skipped(engine)
    for one in estimate(engine):
        if one.error:
            broken += 1
            click.echo(f"{visible(one.title)}: ERROR {visible(one.error)}")
            continue
        if one.seconds is None:
            unknown += 1
        total += one.seconds or 0.0
        cost = "at unknown cost (it was not run before)"
        if one.seconds is not None:
            cost = f"about {one.seconds:.1f} s {'as before' if one.basis == 'before' else 'by timed passes'}"
        state = "stored" if one.stored == one.n else f"{one.stored} of {one.n} stored, the rest {cost}"
        click.echo(f"{visible(one.title)}: {state}")
    click.echo(f"{len(engine.run.plan.cells)} cells, about {total:.0f} s in all, {unknown} cells of unknown cost")
    return EXIT_FAILED if broken else EXIT_PASSED
