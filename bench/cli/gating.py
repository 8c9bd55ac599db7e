"""`gauntlet baseline` and `gauntlet gate`: what they print."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from gauntlet.bench.gating import accept, gate_all, read_either
from gauntlet.bench.runfile import load_run
from gauntlet.leaderboard.baseline import Baseline, diff, read_baseline
from gauntlet.leaderboard.escape import visible
from gauntlet.leaderboard.gate import Policy


def accept_baseline(folder: Path, reason: str, out: Path | None) -> Iterator[str]:
    """Write the baseline, and say what changed in it."""
    done = accept(folder, reason=reason, out=out)
    if done.changes is None:
        for cell in done.baseline.cells:
            yield f"{visible(cell.title)}: robust {int(cell.robust.sum())} of {cell.n}"
    else:
        yield from _told(done.changes)
    yield f"written: {done.path} ({len(done.baseline.cells)} cells, {done.path.stat().st_size / 1024:.1f} KiB)"


def show_changes(new: Path, old: Path) -> Iterator[str]:
    """What changed in `new` since `old`, a sentence a line; each a baseline file or a results folder."""
    yield from _told(tuple(diff(read_either(old), read_either(new))))


def gate_run(folder: Path, file: Path, policy: Policy) -> bool:
    """Judge a run, and print the report; False where the gate fails. Raises BaselineError and RunError."""
    # What cannot be read is wrong usage, and told before anything is judged.
    baseline = read_baseline(file)
    load_run(folder)
    return print_gate(folder, baseline, policy)


def print_gate(folder: Path, baseline: Baseline, policy: Policy) -> bool:
    """Judge the run in `folder` and print the report; False where the gate fails."""
    passed, lines = gate_all([folder], baseline, policy)
    for line in lines:
        click.echo(line)
    return passed


def _told(sentences: tuple[str, ...]) -> Iterator[str]:
    yield from map(visible, sentences or ("nothing changed",))
