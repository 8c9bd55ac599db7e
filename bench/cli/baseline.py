"""`gauntlet baseline`: accepting a run as the baseline of its suite, and what changed since."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import click

from gauntlet.bench.cli.shared.options import RUN, SectionedGroup, SectionedHelp, option, run_argument
from gauntlet.bench.environment.exit_codes import EXIT_PASSED, EXIT_USAGE


@click.group(cls=SectionedGroup, failed="A file cannot be written.")
def baseline() -> None:
    """Accept a run as a baseline, or show what changed since."""


@baseline.command("accept", cls=SectionedHelp, arguments=RUN, failed="A file cannot be written.")
@run_argument()
@option(
    "--reason",
    group="gate",
    default="",
    show_default=False,
    metavar="TEXT",
    help="Why the run is accepted; stored in the baseline. [default: none]",
)
@option(
    "--test",
    group="gate",
    type=click.Choice(["fixed", "sequential"]),
    help="Test of later gates: fixed judges all samples at once, sequential stops as soon as the evidence suffices. "
    "[default: as in the existing file, else fixed]",
)
@option(
    "--out",
    group="output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write. [default: the configured baseline, else bench/baselines/SUITE.json]",
)
@option(
    "--artifact",
    group="output",
    is_flag=True,
    help="Write the adversarial examples and the weights beside the baseline, so that gates can replay them.",
)
def accept(
    folder: Path, reason: str, out: Path | None, test: Literal["fixed", "sequential"] | None, artifact: bool
) -> None:
    """Accept a finished run as the baseline of its suite.

    The baseline is a small file to review and commit. If the file exists, the changes are shown. A run with cells that failed
    or are not finished is refused.
    """
    for line in accept_baseline(folder, reason, out, test, artifact=artifact):
        click.echo(line)


def accept_baseline(
    folder: Path, reason: str, out: Path | None, test: Literal["fixed", "sequential"] | None, *, artifact: bool
) -> Iterator[str]:
    """Write the baseline of a run, and yield lines that show it or what changed."""
    from gauntlet.bench.config.schema import load_config
    from gauntlet.bench.gate.accept_baseline import accept
    from gauntlet.leaderboard.results.escape import visible

    gate = load_config({}, folder=Path.cwd()).gate
    done = accept(folder, reason=reason, out=out or gate.baseline, test=test, artifact=artifact, policy=gate.policy)
    if done.changes is None:
        for cell in done.baseline.cells:
            yield f"{visible(cell.title)}: robust {int(cell.robust.sum())} of {cell.n}"
    else:
        yield from map(visible, done.changes or ("nothing changed",))
    for cell in done.baseline.cells:
        if cell.blocks:
            yield visible(
                f"{cell.title}: accepted although blocked by {', '.join(cell.blocks)}; gates will not fail for that"
            )
    if ref := done.baseline.artifact:
        yield f"written: {done.path.with_name(ref.file)} ({ref.bytes / 1024:,.0f} KiB)"
    count, size = len(done.baseline.cells), done.path.stat().st_size / 1024
    yield f"written: {done.path} ({count} cell{'s' if count != 1 else ''}, {size:.1f} KiB)"


@baseline.command(
    "diff",
    cls=SectionedHelp,
    exits=(EXIT_PASSED, EXIT_USAGE),
    arguments={"RUN|FILE": "Results folder or baseline file.", "BASELINE": "Baseline file to compare it with."},
)
@click.argument("new", metavar="RUN|FILE", type=click.Path(path_type=Path))
@click.argument("old", metavar="BASELINE", type=click.Path(path_type=Path))
def diff(new: Path, old: Path) -> None:
    """Show what changed since a baseline."""
    from gauntlet.bench.gate.accept_baseline import read_baseline_or_run
    from gauntlet.leaderboard.gate import baseline as baselines
    from gauntlet.leaderboard.results.escape import visible

    for line in tuple(baselines.diff(read_baseline_or_run(old), read_baseline_or_run(new))) or ("nothing changed",):
        click.echo(visible(line))
