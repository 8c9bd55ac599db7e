"""`gauntlet run`: a plan run, verified, stored, ranked and judged."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gauntlet.bench.cli.gate import judge, junit_option, refuse
from gauntlet.bench.cli.shared.options import command, option, run_options, uncollected
from gauntlet.bench.environment.exit_codes import (
    EXIT_FAILED,
    EXIT_INCOMPARABLE,
    EXIT_INTERRUPTED,
    EXIT_PASSED,
    MEANINGS,
)

if TYPE_CHECKING:
    from gauntlet.bench.config.cell import Cell
    from gauntlet.bench.config.schema import Config
    from gauntlet.bench.gate.choose_gate import Gate
    from gauntlet.bench.run.engine import Engine
    from gauntlet.leaderboard.gate.baseline import Baseline
    from gauntlet.leaderboard.results.record import CellResult


@command(
    exits=MEANINGS,
    failed="A cell ended in an error, an expectation was missed, the gate failed, or a file cannot be written.",
)
@run_options()
@junit_option()
@option("--dry-run", group="output", is_flag=True, help="Show the plan, stored results and an estimate; run nothing.")
def run(dry_run: bool, **options: Any) -> None:
    """Attack models behind defenses; verify, store and rank.

    Every adversarial example is verified on the model itself. Stored results are not computed again, so that the same command
    resumes an interrupted run.

    Options override the configuration file; naming a model, defense, attack, data set or threat model replaces its groups.
    Without options or configuration the default benchmark runs.
    """
    if click.get_current_context().obj and not dry_run and (gated := gated_run(options)) is not None:
        from gauntlet.bench.gate.supervised_run import supervised

        raise SystemExit(supervised(sys.argv, *gated))
    raise SystemExit((show_plan if dry_run else execute)(options))


def gated_run(options: Mapping[str, Any]) -> tuple[Path, Baseline] | None:
    """Results folder and baseline of a run with a gate, else None; imports neither torch nor code of the user's.

    Raises as `choose_gate` does.
    """
    from gauntlet.bench.config.schema import load_config
    from gauntlet.bench.gate.choose_gate import choose_gate

    config = load_config(options, folder=Path.cwd(), file=options.get("config"))
    none, origin = bool(options.get("no_gate")), options.get("baseline_from")
    gate, _ = choose_gate(config, options.get("gate"), none=none, baseline_from=origin)
    return None if gate is None else (config.out, gate.baseline)


def execute(options: Mapping[str, Any]) -> int:
    """Run a plan, show its leaderboard, judge it by its gate, and return the exit code.

    The code is 1 if an expectation is missed, if the leaderboard cannot be written or, without a gate, if a cell failed;
    otherwise it is the gate's, to which a cell that failed is incomparable.
    """
    with uncollected():
        from gauntlet.bench.config.schema import load_config
        from gauntlet.bench.gate.choose_gate import choose_gate
        from gauntlet.bench.gate.tracked_results import refuse_tracked
        from gauntlet.bench.run.engine import missed
        from gauntlet.bench.run.summary import summary

    config = load_config(options, folder=Path.cwd(), file=options.get("config"))
    gate, note = choose_gate(
        config,
        options.get("gate"),
        allow_undecided=bool(options.get("allow_undecided")),
        early=bool(options.get("gate_early")),
        none=bool(options.get("no_gate")),
        baseline_from=options.get("baseline_from"),
    )
    junit = options.get("junit")
    if junit is not None and gate is None:
        raise ValueError(f"--junit needs a gate: name the baseline with --gate=FILE, or leave it out. {note}".strip())
    if gate is not None:
        refuse_tracked(config.out, config.reuse)
        if gate.deviations:
            return refuse(gate, config.out, junit)
    if gate is not None and gate.early:
        return _execute_early(config, gate, junit)
    engine = _engine(config)
    if gate is not None:
        from gauntlet.bench.gate.plan_check import hold_plan, hold_prepared

        if (held := hold_plan(gate, config, engine.run.plan)).deviations:
            return refuse(held, config.out, junit)
    failed, unmet = [], []
    with _interrupted(engine):
        engine.begin()
        for cell, tell in _progress(engine, engine.run.plan.cells):
            engine.worker.watch = tell.work
            ready = engine.prepare(cell)
            if gate is not None and (held := hold_prepared(gate, config, ready)).deviations:
                return refuse(held, config.out, junit)
            result = engine.finish(cell, ready, tell.advance)
            tell.end(_result_line(result))
            if result.error is not None:
                failed.append(_failure(tell.title, result))
            unmet += [*missed(result, config.expect), *engine.alarms(cell)]
    click.echo()
    shown = summary(engine.run.folder, profile=bool(options.get("profile")))
    for line in shown.lines:
        click.echo(line)
    unwritten = [shown.problem] if shown.problem else []
    code = EXIT_PASSED
    if gate is not None:
        click.echo()
        code = judge(engine.run.folder, gate, junit)
    if note:
        click.echo(note)
    _print_problems([*failed, *unmet, *unwritten])
    if unmet or unwritten or (failed and gate is None):
        return EXIT_FAILED
    return _with_failed_cells(code) if failed else code


def _execute_early(config: Config, gate: Gate, junit: Path | None) -> int:
    """Attack each cell of the gate until its verdict is certain, judge the run, and return the exit code."""
    from gauntlet.bench.gate.early_run import early_cell, gated, open_gate
    from gauntlet.bench.gate.plan_check import hold_plan, hold_prepared
    from gauntlet.leaderboard.gate.trace import Trace

    early = open_gate(gate.file, gate.baseline, gate.policy, config)
    engine = _engine(config)
    if (held := hold_plan(gate, config, engine.run.plan)).deviations:
        return refuse(held, config.out, junit)
    failed = []
    with _interrupted(engine):
        engine.begin()
        for cell, tell in _progress(engine, gated(engine.run.plan.cells)):
            ready = engine.prepare(cell)
            if (held := hold_prepared(gate, config, ready)).deviations:
                return refuse(held, config.out, junit)
            found = early_cell(engine, cell, early, tell.advance, ready)
            if isinstance(found, Trace):
                tell.end(f"{len(found.order)} of {found.n} samples, {found.computed:,.0f} passes")
            else:
                tell.end(_result_line(found))
                failed.append(_failure(tell.title, found))
    click.echo()
    code = judge(engine.run.folder, gate, junit)
    _print_problems(failed)
    return _with_failed_cells(code) if failed else code


@contextmanager
def _interrupted(engine: Engine) -> Iterator[None]:
    """Say at an interrupt how much of the run is stored, and end with the exit code of interrupts."""
    from gauntlet.leaderboard.results import cell_summary as cells

    try:
        yield
    except KeyboardInterrupt:
        stored = sum(cells.covered(result) for result in engine.run.results())
        kept = f"{stored:,} results of samples are stored; run the same command again to resume"
        click.echo(f"\ninterrupted: {kept if stored else 'nothing of this run is stored yet'}", err=True)
        raise SystemExit(EXIT_INTERRUPTED) from None


def _engine(config: Config) -> Engine:
    """The engine of the plan, which has not begun to write."""
    from gauntlet.bench.planning.plan import make_plan
    from gauntlet.bench.run.engine import Engine

    plan = make_plan(config)
    for reason in plan.skipped:
        click.echo(f"not planned: {reason}", err=True)
    return Engine(plan, config, dry=True, note=_note)


def _note(sentence: str) -> None:
    from gauntlet.leaderboard.results.escape import visible

    click.echo(visible(sentence), err=True)


def _with_failed_cells(code: int) -> int:
    """The gate's exit code when cells failed: they are incomparable, which only a failed gate precedes."""
    return code if code == EXIT_FAILED else EXIT_INCOMPARABLE


class _Tell:
    """Shows the progress of one cell: a bar on a terminal, elsewhere a line at its end."""

    def __init__(self, title: str, bars: Any = None) -> None:
        self.title = title
        self._bars = bars

    def advance(self, samples: int) -> None:
        """So many more samples are finished."""
        if self._bars is not None:
            self._bars.advance(samples)

    def work(self, share: float) -> None:
        """This share of the work on the other samples is done."""
        if self._bars is not None:
            self._bars.work(share)

    def end(self, line: str) -> None:
        """The cell is finished."""
        if self._bars is not None:
            self._bars.end(f"{self.title}: {line}")
        else:
            click.echo(f"{self.title}: {line}", err=True)


def _progress(engine: Engine, cells: Sequence[Cell]) -> Iterator[tuple[Cell, _Tell]]:
    """The cells, each with an object that shows its progress."""
    from gauntlet.leaderboard.results.escape import visible

    if sys.stderr.isatty():
        from gauntlet.bench.cli.progress import progress_bars

        context: Any = progress_bars(len(cells))
    else:
        context = nullcontext()
    with context as bars:
        for cell in cells:
            title = visible(engine.run.plan.title(cell))
            if bars is not None:
                bars.begin(title, _sample_count(engine, cell))
            yield cell, _Tell(title, bars)


def _sample_count(engine: Engine, cell: Cell) -> int | None:
    try:
        return len(engine.workbench.data(cell.data).labels)
    except Exception:
        # The cell itself will report it.
        return None


def _result_line(result: CellResult) -> str:
    from gauntlet.leaderboard.report.cell_text import describe_cell
    from gauntlet.leaderboard.results import cell_summary as cells
    from gauntlet.leaderboard.results.escape import visible

    if result.error is not None:
        return f"ERROR {visible(result.error.message)}"
    cost = cells.costs(result)
    stored = " (stored)" if all(block.cached for block in result.blocks) else ""
    return f"{describe_cell(result)}, {cost.seconds:.1f} s{stored}"


def _failure(title: str, result: CellResult) -> str:
    """The kind of a cell's error. Its message was printed when the cell ended, and stands below the table."""
    return f"{title}: {result.error.kind}" if result.error else title


def _print_problems(problems: Sequence[str]) -> None:
    from gauntlet.leaderboard.results.escape import visible

    for problem in problems:
        click.echo(f"PROBLEM {visible(problem)}", err=True)


def show_plan(options: Mapping[str, Any]) -> int:
    """Print the plan, what is stored and an estimate; returns the exit code."""
    from gauntlet.bench.config.schema import load_config
    from gauntlet.bench.run.estimate import estimate
    from gauntlet.leaderboard.results.escape import visible

    engine = _engine(load_config(options, folder=Path.cwd(), file=options.get("config")))
    total, unknown, broken = 0.0, 0, 0
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
