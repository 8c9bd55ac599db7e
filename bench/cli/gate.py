"""`gauntlet gate`: a run judged against a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from gauntlet.bench.cli.shared.options import RUN, Decorator, command, option, run_argument, run_option
from gauntlet.bench.environment.exit_codes import (
    EXIT_FAILED,
    EXIT_INCOMPARABLE,
    EXIT_PASSED,
    EXIT_UNDECIDED,
    EXIT_USAGE,
    GATE_EXITS,
)

if TYPE_CHECKING:
    from gauntlet.bench.gate.choose_gate import Gate
    from gauntlet.bench.gate.judge_run import JudgedRun
    from gauntlet.bench.run.engine import Engine
    from gauntlet.leaderboard.gate.trace import Trace


def junit_option() -> Decorator:
    """`--junit`, as the parameter `junit`."""
    return option(
        "--junit",
        group="output",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Write the gate's report as JUnit XML too, a case for each cell. [default: none]",
    )


@command(
    arguments=RUN | {"BASELINE": "Baseline file. [default: the file that the table [gate] of the configuration names]"},
    exits=(EXIT_PASSED, EXIT_FAILED, EXIT_USAGE, EXIT_INCOMPARABLE, EXIT_UNDECIDED),
    failed="Robustness was lost, rose without a reason or is flagged anew, or a limit was missed.",
)
@run_argument()
@click.argument("file", metavar="[BASELINE]", required=False, type=click.Path(path_type=Path))
@option(
    "--margin",
    group="gate",
    type=float,
    metavar="SHARE",
    help="Drop of robust accuracy to rule out. [default: the configuration's, else 0.02]",
)
@option(
    "--alpha",
    group="gate",
    type=float,
    metavar="RATE",
    help="Rate of false alarms, over all cells together. [default: the configuration's, else 0.05]",
)
@option(
    "--min-robust",
    group="gate",
    type=float,
    metavar="SHARE",
    help="Least robust accuracy of every model in the worst case, in [0, 1]. [default: the configuration's, else none]",
)
@run_option("allow-undecided", default=None)
@run_option("baseline-from")
@option(
    "--format",
    "format_",
    group="output",
    type=click.Choice(["text", "json", "github"]),
    help="Output: text, JSON alone, or text with GitHub annotations. [default: text, or github inside GitHub Actions]",
)
@junit_option()
@run_option("config")
def gate(
    folder: Path,
    file: Path | None,
    format_: Literal["text", "json", "github"] | None,
    config: str | None,
    baseline_from: str | None,
    junit: Path | None,
    **given: float | bool | None,
) -> None:
    """Judge a run against a baseline, sample by sample.

    The report is also written to gate.md and gate.json in RUN and, inside GitHub Actions, to the step's summary.
    """
    raise SystemExit(
        gate_run(folder, file, given, config=config, format_=format_, baseline_from=baseline_from, junit=junit)
    )


def gate_run(
    folder: Path,
    file: Path | None,
    given: Mapping[str, Any],
    *,
    config: str | None = None,
    format_: Literal["text", "json", "github"] | None = None,
    baseline_from: str | None = None,
    junit: Path | None = None,
) -> int:
    """Judge a run, print the report, and return the exit code.

    `file` and the settings `given` (None: not given) override the configuration's gate. Raises BaselineError, RunError,
    ConfigError, and ValueError for invalid settings.
    """
    from gauntlet.bench.config.schema import load_config
    from gauntlet.bench.gate.choose_gate import gate_of
    from gauntlet.bench.gate.early_run import traces
    from gauntlet.bench.gate.judge_run import judge_run
    from gauntlet.bench.gate.plan_check import hold_run
    from gauntlet.bench.gate.publish import remove_report
    from gauntlet.bench.gate.tracked_results import refuse_tracked
    from gauntlet.bench.run.run_folder import load_run

    read = load_config({}, folder=Path.cwd(), file=config)
    table = read.gate
    policy = replace(table.policy, **{name: value for name, value in given.items() if value is not None})
    path = file or table.baseline
    if path is None:
        raise click.UsageError("BASELINE is missing: give the file, or set `baseline` in the table [gate]")
    # Files that cannot be read are wrong usage, which is reported before anything is judged.
    run = load_run(folder)
    refuse_tracked(run.root)
    remove_report(run.root)
    chosen = gate_of(path, replace(read, out=run.root), policy, baseline_from=baseline_from)
    if policy.floors and traces(run, chosen.baseline):
        raise ValueError(
            "min_robust (--min-robust) needs every sample, and the run stopped early (--gate-early): make a complete run without "
            "--gate-early and `early = true`, or leave the floor out"
        )
    return print_judged(judge_run(run, hold_run(chosen, run)), format_, junit)


def judge(engine: Engine, gate: Gate, traces: Sequence[Trace] = (), junit: Path | None = None) -> int:
    """Judge the run that an engine made, print the report, and return the exit code: success only with its own gate.json.

    `traces`: of the cells in which the gate stopped early; `junit`: a file for JUnit XML.
    """
    from gauntlet.bench.gate.judge_run import judge_loaded, unpassed
    from gauntlet.leaderboard.results.escape import visible

    # Pictures of lost samples are a worker's work as well.
    engine.worker.allow(engine.config.timeout)
    judged = judge_loaded(engine.run, gate, traces, work=engine.work)
    # Nothing of it may write any more when the report is read again.
    engine.worker.close()
    code = print_judged(judged, junit=junit)
    if code == EXIT_PASSED and (problem := unpassed(judged, engine.run.root)):
        click.echo(f"PROBLEM the gate is not passed, although its verdicts are: {visible(problem)}", err=True)
        return EXIT_FAILED
    return code


def refuse(gate: Gate, out: Path, junit: Path | None = None) -> int:
    """Print and write the verdict on what is looser than the baseline, or different; nothing is attacked."""
    from gauntlet.bench.gate.judge_run import refused

    return print_judged(refused(gate, out), junit=junit)


def print_judged(
    judged: JudgedRun, format_: Literal["text", "json", "github"] | None = None, junit: Path | None = None
) -> int:
    """Print the report, write it as JUnit XML if a file is named, and return the exit code: that of the verdicts, or of a failure
    where that file cannot be written.

    Without a format the report has annotations inside GitHub Actions; `json`: its notes go to standard error.
    """
    from gauntlet.bench.gate.publish import default_format, lines, write_junit
    from gauntlet.leaderboard.results.errors import WriteError

    as_json = format_ == "json"
    shown = [judged.json] if format_ == "json" else lines(judged.report, format_ or default_format())
    for line in shown:
        click.echo(line)
    for note in judged.notes:
        click.echo(note, err=as_json)
    try:
        for note in write_junit(judged.report, junit):
            click.echo(note, err=as_json)
    except WriteError as error:
        click.echo(f"error: --junit: {error}", err=True)
        return EXIT_FAILED
    return GATE_EXITS[judged.report.state]
