"""`gauntlet run`: progress on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gauntlet.bench.config.schema import Config, load_config
from gauntlet.bench.environment.exit_codes import EXIT_FAILED, EXIT_INCOMPARABLE, GATE_EXITS
from gauntlet.bench.gate.choose_gate import Gate, choose_gate
from gauntlet.bench.planning.plan import Cell, make_plan
from gauntlet.bench.run.engine import Engine, missed
from gauntlet.bench.run.estimate import estimate
from gauntlet.bench.run.summary import summary
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.results.record import CellResult
from gauntlet.leaderboard.rows.corruptions import told


def _config(options: Mapping[str, Any]) -> Config:
    return load_config(options, folder=Path.cwd(), file=options.get("config"))


def _engine(config: Config, *, dry: bool = False) -> Engine:
    plan = make_plan(config)
    for reason in plan.skipped:
        click.echo(f"not planned: {reason}", err=True)
    engine = Engine(plan, config, dry=True)
    if not dry:
        engine.begin()
    return engine


def execute(options: Mapping[str, Any]) -> int:
    """Run a plan, show its leaderboard and judge it by its gate; returns the exit code.

    It is 1 where an expectation is missed or, without a gate, a cell failed; else the gate's. To a gate a cell that failed is
    incomparable, whatever its attack.
    """
    config = _config(options)
    gate, note = choose_gate(
        config,
        options.get("gate"),
        allow_undecided=bool(options.get("allow_undecided")),
        early=bool(options.get("gate_early")),
        none=bool(options.get("no_gate")),
    )
    if gate is not None and gate.early:
        return _execute_early(config, gate)
    engine = _engine(config)
    failed, unmet = [], []
    for cell, tell in _progress(engine, engine.run.plan.cells):
        result = engine.cell(cell, tell.count)
        tell.done(_line(result))
        if result.error is not None:
            failed.append(_failure(tell.title, result))
        unmet += [*missed(result, config.expect), *engine.alarms(cell)]
    click.echo()
    for line in summary(engine.run.folder):
        click.echo(line)
    code = _judge(engine, gate) if gate is not None else 0
    if note:
        click.echo(note)
    for problem in (*failed, *unmet):
        click.echo(f"PROBLEM {visible(problem)}", err=True)
    if unmet or (failed and gate is None):
        return EXIT_FAILED
    # A cell in error cannot be compared, which counts before an undecided gate and after a failed one.
    return EXIT_INCOMPARABLE if failed and code != EXIT_FAILED else code


def _judge(engine: Engine, gate: Gate) -> int:
    """Judge the run by its gate and print the report; returns the gate's exit code."""
    from gauntlet.bench.cli.gating import print_judged
    from gauntlet.bench.gate.gate import judge_run

    click.echo()
    judged = judge_run(engine.run.folder, gate)
    print_judged(judged)
    return GATE_EXITS[judged.report.state]


def _execute_early(config: Config, gate: Gate) -> int:
    """Attack each cell that is judged until its verdict is certain, and judge; returns the exit code."""
    from gauntlet.bench.gate.early_run import early_cell, gated, open_gate
    from gauntlet.leaderboard.gate.trace import Trace

    early = open_gate(gate.file, gate.baseline, gate.policy, config)
    engine = _engine(config)
    failed = []
    for cell, tell in _progress(engine, gated(engine.run.plan.cells)):
        found = early_cell(engine, cell, early, tell.count)
        if isinstance(found, Trace):
            tell.done(f"{len(found.order)} of {found.n} samples, {found.computed:,.0f} passes")
        else:
            tell.done(_line(found))
            failed.append(_failure(tell.title, found))
    code = _judge(engine, gate)
    for problem in failed:
        click.echo(f"PROBLEM {visible(problem)}", err=True)
    return EXIT_INCOMPARABLE if failed and code != EXIT_FAILED else code


@dataclass(frozen=True)
class _Tell:
    """Where a cell's progress goes."""

    title: str
    count: Callable[[int], None]
    done: Callable[[str], None]


def _progress(engine: Engine, planned: Sequence[Cell]) -> Iterator[tuple[Cell, _Tell]]:
    """The cells, each with its bar on a terminal; elsewhere a line when it is done."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        overall = bars.add_task("cells", total=len(planned))
        for cell in planned:
            title = visible(engine.run.plan.title(cell))
            total = len(engine.workbench.data(cell.data).labels) if _loads(engine, cell) else None
            bar = bars.add_task(title, total=total)

            def done(line: str, title: str = title) -> None:
                bars.console.print(f"{title}: {line}", markup=False, highlight=False, soft_wrap=True)

            yield cell, _Tell(title, partial(bars.advance, bar), done)
            bars.remove_task(bar)
            bars.advance(overall)


def _failure(title: str, result: CellResult) -> str:
    return f"{title}: {result.error.kind}: {result.error.message}" if result.error else title


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
    stored = " (stored)" if all(block.cached for block in result.blocks) else ""
    return f"{told(result)} of {n}, {cost.seconds:.1f} s{stored}"


def dry(options: Mapping[str, Any]) -> int:
    """Show the plan, what is stored and an estimate; returns the exit code."""
    engine = _engine(_config(options), dry=True)
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
    return EXIT_FAILED if broken else 0
