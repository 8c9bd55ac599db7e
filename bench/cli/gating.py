"""`gauntlet baseline` and `gauntlet gate`: what they print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import click

from gauntlet.bench.config.schema import load_config
from gauntlet.bench.environment.exit_codes import GATE_EXITS
from gauntlet.bench.gate.accept import accept, read_either
from gauntlet.bench.gate.choose_gate import Gate
from gauntlet.bench.gate.gate import Judged, judge_run
from gauntlet.bench.gate.publish import Format, default_format, lines
from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.gate.baseline import Test, diff
from gauntlet.leaderboard.gate.baseline_file import read_baseline
from gauntlet.leaderboard.results.escape import visible


def accept_baseline(folder: Path, reason: str, out: Path | None, test: Test | None, *, artifact: bool) -> Iterator[str]:
    """Write the baseline, where the configuration names its place there, and say what changed in it."""
    out = out or load_config({}, folder=Path.cwd()).gate.baseline
    done = accept(folder, reason=reason, out=out, test=test, artifact=artifact)
    if done.changes is None:
        for cell in done.baseline.cells:
            yield f"{visible(cell.title)}: robust {int(cell.robust.sum())} of {cell.n}"
    else:
        yield from _told(done.changes)
    if ref := done.baseline.artifact:
        yield f"written: {done.path.with_name(ref.file)} ({ref.bytes / 1024:,.0f} KiB)"
    count, size = len(done.baseline.cells), done.path.stat().st_size / 1024
    yield f"written: {done.path} ({count} cell{'s' if count != 1 else ''}, {size:.1f} KiB)"


def show_changes(new: Path, old: Path) -> Iterator[str]:
    """What changed in `new` since `old`, a sentence a line; each a baseline file or a results folder."""
    yield from _told(tuple(diff(read_either(old), read_either(new))))


def gate_run(
    folder: Path,
    file: Path | None,
    given: Mapping[str, Any],
    *,
    config: str | None = None,
    format_: Format | Literal["json"] | None = None,
) -> int:
    """Judge a run, print the report, and return the exit code.

    `file` and the settings `given` (None: not given) win over the configuration's gate. Raises BaselineError, RunError,
    ConfigError, and ValueError for settings that make no sense.
    """
    table = load_config({}, folder=Path.cwd(), file=config).gate
    policy = replace(table.policy, **{name: value for name, value in given.items() if value is not None})
    path = file or table.baseline
    if path is None:
        raise click.UsageError("BASELINE is missing: name the file, or write it as `baseline` into the table [gate]")
    # What cannot be read is wrong usage, and told before anything is judged.
    baseline = read_baseline(path)
    load_run(folder)
    judged = judge_run(folder, Gate(path, baseline, policy))
    if format_ == "json":
        click.echo(judged.json)
        for note in judged.notes:
            click.echo(note, err=True)
    else:
        print_judged(judged, format_)
    return GATE_EXITS[judged.report.state]


def print_judged(judged: Judged, format_: Format | None = None) -> None:
    """Print the report, by default as it suits where it is read."""
    for line in (*lines(judged.report, format_ or default_format()), *judged.notes):
        click.echo(line)


def _told(sentences: tuple[str, ...]) -> Iterator[str]:
    yield from map(visible, sentences or ("nothing changed",))
