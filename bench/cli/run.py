"""`gauntlet run`: a plan run, verified, stored, ranked and judged."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gauntlet.bench.cli.gate import judge, junit_option, refuse
from gauntlet.bench.cli.shared.begin import imports, print_skipped, say
from gauntlet.bench.cli.shared.options import command, option, run_options
from gauntlet.bench.environment.exit_codes import (
    EXIT_FAILED,
    EXIT_INCOMPARABLE,
    EXIT_INTERRUPTED,
    EXIT_PASSED,
    MEANINGS,
)

if TYPE_CHECKING:
    from gauntlet.bench.cli.progress import Tell
    from gauntlet.bench.config.cell import Cell
    from gauntlet.bench.config.schema import Config
    from gauntlet.bench.gate.choose_gate import Gate
    from gauntlet.bench.run.engine import Engine, ReadyCell
    from gauntlet.leaderboard.results.record import CellError, CellResult

_LATE = ("pandas", "gauntlet.bench.run.summary", "gauntlet.bench.gate.judge_run", "gauntlet.bench.gate.plan_check")
_DEFAULT_BENCHMARK = (
    "no model is named, and there is no gauntlet.toml: the default benchmark runs, on embedded models. Your own model: "
    "gauntlet run --model FILE.py:FACTORY@WEIGHTS --data DATA"
)


@command(
    exits=MEANINGS,
    failed="A cell ended in an error, an expectation was missed, the gate failed, or a file cannot be written.",
)
@run_options()
@junit_option()
@option(
    "--isolate",
    group="machine",
    is_flag=True,
    help="Run the code under evaluation in a process of its own, as a run with a gate always does.",
)
@option(
    "--timeout",
    group="machine",
    type=float,
    metavar="SECONDS",
    help="Seconds that preparing a cell, and then attacking it, may take before it ends in error; implies --isolate. "
    "[default: no limit]",
)
@option(
    "--shard",
    group="machine",
    metavar="I/N",
    envvar="GAUNTLET_SHARD",
    show_envvar=True,
    help="Run the I-th of N equal parts of every cell, or auto: the part of this task of a Slurm job array. A shard writes no "
    "tables and judges nothing; the same command without it ends the work. [default: all]",
)
@option("--dry-run", group="output", is_flag=True, help="Show the plan, stored results and an estimate; run nothing.")
def run(dry_run: bool, **options: Any) -> None:
    """Attack models behind defenses; verify, store and rank.

    Every adversarial example is verified on the model itself. Stored results are not computed again, so that the same command
    resumes an interrupted run.

    Options override the configuration file; naming a model, defense, attack, data set or threat model replaces its groups.
    Without options or configuration the default benchmark runs.
    """
    gates_isolated = bool(click.get_current_context().obj)
    raise SystemExit(_dry(options) if dry_run else execute(options, gates_isolated=gates_isolated))


def _dry(options: Mapping[str, Any]) -> int:
    from gauntlet.bench.cli.dry_run import show_plan

    return show_plan(options)


def execute(options: Mapping[str, Any], *, gates_isolated: bool = True) -> int:
    """Run a plan, show its leaderboard, judge it by its gate, and return the exit code.

    The code is 1 if an expectation is missed, if the leaderboard cannot be written or, without a gate, if a cell failed;
    otherwise it is the gate's, to which a cell that failed is incomparable. `gates_isolated`: a run with a gate is isolated,
    though it is not configured to be.
    """
    from gauntlet.bench.config.files import is_configured
    from gauntlet.bench.config.schema import load_config
    from gauntlet.bench.gate.choose_gate import choose_gate

    config = load_config(options, folder=Path.cwd(), file=options.get("config"))
    if options.get("config") is None and not config.narrowed and not is_configured(Path.cwd()):
        click.echo(_DEFAULT_BENCHMARK, err=True)
    if config.shard is not None:
        return _execute_shard(config, options)
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
    isolated = config.elsewhere or (gates_isolated and gate is not None)
    if gate is None:
        return _execute(config, note, isolated=isolated, profile=bool(options.get("profile")))
    from gauntlet.bench.gate.publish import remove_report
    from gauntlet.bench.gate.tracked_results import refuse_tracked

    refuse_tracked(config.out, config.reuse)
    remove_report(config.out)
    if gate.deviations:
        return refuse(gate, config.out, junit)
    if gate.early:
        return _execute_early(config, gate, junit, isolated=isolated)
    return _execute(config, note, gate, junit, isolated=isolated, profile=bool(options.get("profile")))


def _execute_shard(config: Config, options: Mapping[str, Any]) -> int:
    """Run a part of every cell, and return the exit code. Raises ValueError for options that need all of a run."""
    for name in ("gate", "gate_early", "baseline_from", "allow_undecided", "junit", "profile"):
        if options.get(name):
            option = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"{option} needs all of a run, and --shard={config.shard} is a part: leave one of them out"
            )
    if config.gate.baseline is not None and not options.get("no_gate"):
        from gauntlet.bench.gate.choose_gate import automatic

        if automatic():
            raise ValueError(
                f"--shard={config.shard} judges nothing, and the configuration has a gate: give --no-gate, or leave out "
                "the shard (and GAUNTLET_SHARD) for a run that the gate judges"
            )
        click.echo("Gate not applied: a shard judges nothing; the run without --shard does.", err=True)
    with imports(isolated=config.elsewhere):
        from gauntlet.bench.cli.shard_run import run_shard

    with _begun(config, None, None, isolated=config.elsewhere) as engine:
        failed = run_shard(engine)
    _print_problems(failed)
    return EXIT_FAILED if failed else EXIT_PASSED


def _execute(
    config: Config,
    note: str,
    gate: Gate | None = None,
    junit: Path | None = None,
    *,
    isolated: bool,
    profile: bool,
) -> int:
    """Run every cell of the plan, and judge the run by the gate, if there is one."""
    with imports(isolated=isolated):
        from gauntlet.bench.cli.progress import result_line
        from gauntlet.bench.cli.run_cells import run_cells
        from gauntlet.bench.run.engine import missed
        from gauntlet.bench.run.summary import summary

    failed, unmet = [], []
    with _begun(config, gate, junit, isolated=isolated) as engine:
        with closing(run_cells(engine, lambda cell, tell: _prepared(engine, cell, tell, gate, junit))) as finished:
            for cell, tell, result in finished:
                tell.end(result_line(result))
                if result.error is not None:
                    failed.append(_failure(tell.title, result))
                unmet += [*missed(result, config.expect), *engine.alarms(cell)]
        click.echo()
        shown = summary(engine.run, profile=profile)
        for line in shown.lines:
            click.echo(line)
        unwritten = [shown.problem] if shown.problem else []
        code = EXIT_PASSED
        if gate is not None:
            click.echo()
            code = judge(engine, gate, junit=junit)
    if note:
        click.echo(note)
    _print_problems([*failed, *unmet, *unwritten])
    if unmet or unwritten or (failed and gate is None):
        return EXIT_FAILED
    return _with_failed_cells(code) if failed else code


def _execute_early(config: Config, gate: Gate, junit: Path | None, *, isolated: bool) -> int:
    """Attack each cell of the gate until its verdict is certain, judge the run, and return the exit code."""
    with imports(isolated=isolated):
        from gauntlet.bench.cli.progress import in_turn, result_line
        from gauntlet.bench.gate.early_run import early_cell, gated, is_needed, open_gate
        from gauntlet.leaderboard.gate.trace import Trace

    # What counts of the artifact is what was there before code of the user's ran.
    early = open_gate(gate.file, gate.baseline, gate.policy, config)
    failed, traces = [], []
    with _begun(config, gate, junit, isolated=isolated) as engine:
        for cell, tell in in_turn(engine.run.plan, gated(engine.run.plan.cells)):
            ready = _prepared(engine, cell, tell, gate, junit)
            found = early_cell(engine, cell, early, tell.advance, ready)
            if isinstance(found, Trace):
                tell.end(f"{len(found.order)} of {found.n} samples, {found.computed:,.0f} passes")
                traces += [found] if is_needed(engine.run, cell, found) else []
            else:
                tell.end(result_line(found))
                failed.append(_failure(tell.title, found))
        click.echo()
        code = judge(engine, gate, traces, junit)
    _print_problems(failed)
    return _with_failed_cells(code) if failed else code


@contextmanager
def _begun(config: Config, gate: Gate | None, junit: Path | None, *, isolated: bool) -> Iterator[Engine]:
    """The engine of the plan, which has begun to write; an interrupt ends the run. So does a plan that the gate refuses."""
    from gauntlet.bench.run.plan_engine import plan_engine

    with plan_engine(config, isolated=isolated, note=say, meanwhile=_import_late_modules) as engine:
        print_skipped(engine)
        if gate is not None:
            from gauntlet.bench.gate.plan_check import hold_plan

            _end_if_refused(hold_plan(gate, config, engine.run.plan, engine.worker.versions), config, junit)
        with _interrupted(engine):
            engine.begin()
            yield engine


def _import_late_modules() -> None:
    """Import what functions import later: code that is evaluated may write files that stand in for these modules."""
    for name in _LATE:
        importlib.import_module(name)
    from gauntlet.leaderboard.page.assets import load

    load()


def _prepared(engine: Engine, cell: Cell, tell: Tell, gate: Gate | None, junit: Path | None) -> ReadyCell | CellError:
    """The prepared cell, unless the gate refuses it, which ends the run."""
    from gauntlet.bench.run.engine import ReadyCell

    engine.worker.watch = tell.work
    ready = engine.prepare(cell)
    if gate is not None:
        from gauntlet.bench.gate.plan_check import hold_prepared

        _end_if_refused(hold_prepared(gate, engine.config, ready), engine.config, junit)
    if isinstance(ready, ReadyCell):
        tell.total(ready.prepared.samples)
    return ready


def _end_if_refused(gate: Gate, config: Config, junit: Path | None) -> None:
    if gate.deviations:
        raise SystemExit(refuse(gate, config.out, junit))


@contextmanager
def _interrupted(engine: Engine) -> Iterator[None]:
    """Say at an interrupt how much of the run is stored, and end with the exit code of interrupts."""
    from gauntlet.leaderboard.results import cell_summary as cells

    try:
        yield
    except KeyboardInterrupt:
        stored = sum(cells.covered(result) for result in engine.run.results())
        kept = f"{stored:,} outcomes are stored, one for each sample and attack; run the same command again to resume"
        click.echo(f"\ninterrupted: {kept if stored else 'nothing of this run is stored yet'}", err=True)
        raise SystemExit(EXIT_INTERRUPTED) from None


def _with_failed_cells(code: int) -> int:
    """The gate's exit code when cells failed: they are incomparable, which only a failed gate precedes."""
    return code if code == EXIT_FAILED else EXIT_INCOMPARABLE


def _failure(title: str, result: CellResult) -> str:
    """The kind of a cell's error. Its message was printed when the cell ended, and stands below the table."""
    return f"{title}: {result.error.kind}" if result.error else title


def _print_problems(problems: Sequence[str]) -> None:
    from gauntlet.leaderboard.results.escape import visible

    for problem in problems:
        click.echo(f"PROBLEM {visible(problem)}", err=True)
