"""The commands `gauntlet baseline` and `gauntlet gate`. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from gauntlet.bench.environment.exit_codes import EPILOG

GATE_EPILOG = (
    "Exit codes: 0 every cell held; 1 regressed, suspicious, or a limit missed; 2 wrong usage, or a run or baseline that "
    "cannot be read; 3 incomparable, or nothing compared; 4 undecided. Of several 1 counts before 3, and 3 before 4."
)


@click.group(epilog=EPILOG)
def baseline() -> None:
    """Accept a run as the baseline of its suite, or show what changed since."""


@baseline.command("accept", epilog=EPILOG)
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--reason", default="", help="Why this run is right; kept in the file.", metavar="TEXT")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="File to write (default: the configuration's, else bench/baselines/SUITE.json).",
    metavar="FILE",
)
@click.option(
    "--test",
    type=click.Choice(["fixed", "sequential"]),
    help="How gates judge: one test on all samples, or one that stops when the evidence suffices (default: as before, "
    "else fixed).",
)
@click.option("--artifact", is_flag=True, help="Write the examples and weights beside it, so that gates can replay.")
def accept(
    folder: Path, reason: str, out: Path | None, test: Literal["fixed", "sequential"] | None, artifact: bool
) -> None:
    """Write the baseline of a finished run: a small file to review and commit.

    What it changes in an older file is shown. A run with cells in error or not finished is refused.
    """
    from gauntlet.bench.cli.gating import accept_baseline

    for line in accept_baseline(folder, reason, out, test, artifact=artifact):
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
@click.argument("file", metavar="[BASELINE]", required=False, type=click.Path(path_type=Path))
@click.option("--margin", type=float, help="The drop of robust accuracy to rule out (default 0.02).")
@click.option("--alpha", type=float, help="Rate of false alarms, over all cells together (default 0.05).")
@click.option(
    "--min-robust", type=float, help="Floor of every model's robust accuracy, in the worst case, a share in [0, 1]."
)
@click.option("--allow-undecided", is_flag=True, default=None, help="Pass where the samples are too few to decide.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json", "github"]),
    help="What is printed: text, JSON alone, or text and annotations (default: text, and github inside GitHub Actions).",
)
@click.option("--config", help="Config file; else gauntlet.toml, or [tool.gauntlet] of pyproject.toml.", metavar="FILE")
def gate(
    folder: Path,
    file: Path | None,
    format_: Literal["text", "json", "github"] | None,
    config: str | None,
    **given: float | bool | None,
) -> None:
    """Judge a run against a baseline, sample by sample: has robustness been lost?

    BASELINE and the other settings default to those of the table [gate] of the configuration. The report is written to
    gate.md and gate.json in RUN too, and on GitHub to the step's summary.
    """
    from gauntlet.bench.cli.gating import gate_run

    raise SystemExit(gate_run(folder, file, given, config=config, format_=format_))


@click.command("gate-costs", epilog=EPILOG)
@click.argument("models", nargs=-1)
@click.option(
    "--out", default="gauntlet-gate-costs", show_default=True, type=click.Path(path_type=Path), help="Folder to write."
)
def gate_costs(models: tuple[str, ...], out: Path) -> None:
    """Measure what share of a full run's passes a gate costs, on embedded MODELS and on changed ones.

    cnn.trades_digits and cnn.pgd_digits without any, which takes some minutes.
    """
    from gauntlet.bench.speed.gate_costs import measure_gate_costs

    chosen = models or ("cnn.trades_digits", "cnn.pgd_digits")
    click.echo(measure_gate_costs(chosen, out, lambda line: click.echo(line, err=True)))
    click.echo(f"written: {out / 'gate-costs.md'}, {out / 'gate-costs.csv'}")
