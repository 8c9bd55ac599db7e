"""`gauntlet run`: progress on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gauntlet.bench.cli.gating import print_gate
from gauntlet.bench.config import load_config
from gauntlet.bench.engine import Engine, missed
from gauntlet.bench.estimate import estimate
from gauntlet.bench.plan import make_plan
from gauntlet.bench.session import summary
from gauntlet.leaderboard import cells
from gauntlet.leaderboard.baseline import read_baseline
from gauntlet.leaderboard.escape import visible
from gauntlet.leaderboard.gate import Policy
from gauntlet.leaderboard.record import CellResult


def _engine(options: Mapping[str, Any], *, dry: bool = False) -> Engine:
    config = load_config(options, folder=Path.cwd(), file=options.get("config"))
    plan = make_plan(config)
    for reason in plan.skipped:
        click.echo(f"not planned: {reason}", err=True)
    return Engine(plan, config, dry=dry)


def execute(options: Mapping[str, Any]) -> bool:
    """Run a plan and show its leaderboard; False where a cell failed or missed an expectation, or the gate fails."""
    if options.get("allow_undecided") and not options.get("gate"):
        raise ValueError("--allow-undecided is about a gate: name the baseline with --gate FILE, or leave it out")
    baseline = read_baseline(Path(options["gate"])) if options.get("gate") else None
    engine = _engine(options)
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    problems: list[str] = []
    plan = engine.run.plan
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        overall = bars.add_task("cells", total=len(plan.cells))
        for cell in plan.cells:
            title = visible(plan.title(cell))
            bar = bars.add_task(
                title, total=len(engine.workbench.data(cell.data).labels) if _loads(engine, cell) else None
            )
            result = engine.cell(cell, lambda count, bar=bar: bars.advance(bar, count))  # type: ignore[misc]
            bars.remove_task(bar)
            bars.advance(overall)
            bars.console.print(f"{title}: {_line(result)}", markup=False, highlight=False, soft_wrap=True)
            if result.error is not None:
                problems.append(f"{title}: {result.error.kind}: {result.error.message}")
            problems += [*missed(result, engine.config.expect), *engine.alarms(cell)]
    click.echo()
    for line in summary(engine.run.folder):
        click.echo(line)
    passed = True
    if baseline is not None:
        click.echo()
        passed = print_gate(engine.run.folder, baseline, Policy(allow_undecided=options["allow_undecided"]))
    for problem in problems:
        click.echo(f"PROBLEM {visible(problem)}", err=True)
    return not problems and passed


def _loads(engine: Engine, cell: Any) -> bool:
    try:
        engine.workbench.data(cell.data)
    except Exception:
        # The cell itself will report it.
        return False
    return True


def _line(result: CellResult) -> str:
    if result.error is not None:
        return f"ERROR {visible(result.error.message)}"
    n, cost = cells.covered(result), cells.costs(result)
    robust = sum(int(block.samples.robust.sum()) for block in result.blocks)
    stored = " (stored)" if all(block.cached for block in result.blocks) else ""
    return f"robust {100 * robust / n:.1f} % of {n}, {cost.seconds:.1f} s{stored}"


def dry(options: Mapping[str, Any]) -> bool:
    """Show the plan, what is stored and an estimate."""
    engine = _engine(options, dry=True)
    total, unknown, broken = 0.0, 0, 0
    for one in estimate(engine):
        if one.error:
            broken += 1
            click.echo(f"{visible(one.title)}: ERROR {visible(one.error)}")
            continue
        if one.seconds is None:
            unknown += 1
        total += one.seconds or 0.0
        cost = "of unknown cost (an attack that runs whole)" if one.seconds is None else f"at most {one.seconds:.1f} s"
        state = "stored" if one.stored == one.n else f"{one.stored} of {one.n} stored, the rest {cost}"
        click.echo(f"{visible(one.title)}: {state}")
    click.echo(f"{len(engine.run.plan.cells)} cells, at most {total:.0f} s in all, {unknown} cells of unknown cost")
    return not broken
