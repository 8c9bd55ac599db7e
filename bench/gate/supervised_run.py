"""A gated run in a process of its own, judged by one that imports no code of the user's.

The code under evaluation runs in a process of its own, which it may end at any time and with any exit code: `os._exit(0)` in a
forward pass is not a passed gate. The first process passes the gate only by the report that this very run wrote.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gauntlet.bench.environment.exit_codes import EXIT_FAILED, EXIT_PASSED
from gauntlet.bench.environment.gate_nonce import NONCE

if TYPE_CHECKING:
    from gauntlet.leaderboard.gate.baseline import Baseline

_RUN = "import sys; sys.argv[0] = {command!r}; from gauntlet.bench.cli.main import main; main()"


def supervised(command: list[str], out: Path, baseline: Baseline) -> int:
    """Run `command` (its name and arguments) and return its exit code; that of success only with a report that passes.

    `out`: the results folder, where the report of an earlier run is removed first.
    """
    report, nonce = out / "gate.json", secrets.token_hex(16)
    try:
        report.unlink(missing_ok=True)
    except OSError as error:
        click.echo(f"error: cannot replace {report} ({error.strerror}): remove what stands in its place", err=True)
        return EXIT_FAILED
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _RUN.format(command=command[0]), *command[1:]], env={**os.environ, NONCE: nonce}
    )
    # A terminal sends Ctrl-C to both, and the run says then how much is stored; what is sent to this process alone is passed on.
    before = signal.signal(signal.SIGTERM, lambda number, frame: process.send_signal(number))
    try:
        code = _waited(process)
    finally:
        signal.signal(signal.SIGTERM, before)
    if code != EXIT_PASSED:
        return code if code > 0 else EXIT_FAILED
    if problem := _missing(report, nonce, baseline):
        click.echo(f"PROBLEM the gate is not passed, although the run ended with exit code 0: {problem}", err=True)
        return EXIT_FAILED
    return EXIT_PASSED


def _waited(process: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def _missing(report: Path, nonce: str, baseline: Baseline) -> str:
    """Why the report does not pass the gate; empty if it does."""
    try:
        found = json.loads(report.read_text(encoding="utf-8"))
        own = found["nonce"] == nonce
        passed = found["passed"] is True and found["exit_code"] == EXIT_PASSED
        judged = len([verdict for verdict in found["verdicts"] if verdict["key"] is not None])
    except FileNotFoundError:
        return f"it wrote no {report}: the code under evaluation ended the process, or the file cannot be written"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{report} cannot be read ({type(error).__name__}: {error})"
    if not own:
        return f"{report} is not of this run"
    if judged < len(baseline.cells):
        return f"{report} has verdicts on {judged} of the baseline's {len(baseline.cells)} cells"
    return "" if passed else f"{report} says that it failed"
