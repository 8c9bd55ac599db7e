"""The commands `gauntlet baseline` and `gauntlet gate`. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

from pathlib import Path

import click

from gauntlet.bench.cli.exits import EPILOG, EXIT_FAILED

GATE_EPILOG = "Exit codes: 0 passed; 1 failed; 2 wrong usage, or a run or baseline that cannot be read."


@click.group(epilog=EPILOG)
def baseline() -> None:
    """Accept a run as the baseline of its suite, or show what changed since."""


@baseline.command("accept", epilog=EPILOG)
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--reason", default="", help="Why this run is right; kept in the file.", metavar="TEXT")
@click.option(
    "--out", type=click.Path(path_type=Path), help="File to write (default bench/baselines/SUITE.json).", metavar="FILE"
)
def accept(folder: Path, reason: str, out: Path | None) -> None:
    """Write the baseline of a finished run: a small file to review and commit.

    What it changes in an older file is shown. A run with cells in error or not finished is refused.
    """
    from gauntlet.bench.cli.gating import accept_baseline

    for line in accept_baseline(folder, reason, out):
        click.echo(line)


@baseline.command("diff", epilog=EPILOG)
@click.argument("new", metavar="RUN|FILE", type=click.Path(path_type=Path))
@click.argument("old", metavar="BASELINE", type=click.Path(path_type=Path))
def diff(new: Path, old: Path) -> None:
    """Show what changed in a run, or in a baseline file, since BASELINE."""
    from gauntlet.bench.cli.gating import show_changes

    for line in show_changes(new, old):
        click.echo(line)


@click.command(epilog=GATE_EPILOG)
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("file", metavar="BASELINE", type=click.Path(path_type=Path))
@click.option("--margin", default=0.02, show_default=True, help="The drop of robust accuracy to rule out.")
@click.option("--alpha", default=0.05, show_default=True, help="Rate of false alarms, over all cells together.")
@click.option(
    "--min-robust", type=float, help="Floor of every model's robust accuracy, in the worst case, a share in [0, 1]."
)
@click.option("--allow-undecided", is_flag=True, help="Pass where the samples are too few to decide.")
def gate(
    folder: Path, file: Path, margin: float, alpha: float, min_robust: float | None, allow_undecided: bool
) -> None:
    """Judge a run against a baseline, sample by sample: has robustness been lost?

    The report is written to RUN/gate.md, too.
    """
    from gauntlet.bench.cli.gating import gate_run
    from gauntlet.leaderboard.gate import Policy

    policy = Policy(alpha=alpha, margin=margin, min_robust=min_robust, allow_undecided=allow_undecided)
    if not gate_run(folder, file, policy):
        raise SystemExit(EXIT_FAILED)
