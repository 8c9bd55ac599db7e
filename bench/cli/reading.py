"""`gauntlet show`, `leaderboard` and `verify`: what is read from a stored run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from gauntlet.bench.device import choose_device
from gauntlet.bench.engine import write_leaderboard
from gauntlet.bench.reverify import reverify
from gauntlet.bench.runfile import load_run
from gauntlet.leaderboard import cells
from gauntlet.leaderboard.escape import visible
from gauntlet.leaderboard.table import rows
from gauntlet.leaderboard.terminal import terminal_table


def show_run(folder: Path) -> Iterator[str]:
    """The leaderboard, then a line for each cell."""
    run = load_run(folder)
    results = run.results()
    yield from terminal_table(rows(results)).splitlines()
    yield ""
    size = 0
    for cell, result in zip(run.plan.cells, results, strict=True):
        size += sum(run.store.size(block.key) for block in result.blocks)
        title, n = visible(run.plan.title(cell)), cells.covered(result)
        if result.error is not None:
            yield f"{title}: ERROR {result.error.kind}: {visible(result.error.message)}"
        elif cells.status(result) == "unfinished":
            yield f"{title}: not finished, {n} of {result.expected or '?'} samples"
        else:
            robust = sum(int(block.samples.robust.sum()) for block in result.blocks)
            cost = cells.costs(result)
            passes = f"{cost.forwards_per_sample:.1f}/{cost.backwards_per_sample:.1f} passes a sample"
            yield f"{title}: robust {robust} of {n}, {cost.seconds:.2f} s, {passes}"
    yield f"{size / 2**20:.1f} MiB stored for this run in {run.root}"


def write_files(folder: Path) -> Iterator[str]:
    """Write the leaderboard's files again, and name them."""
    files, _ = write_leaderboard(load_run(folder))
    for path in (files.leaderboard_csv, files.cells_csv, files.markdown):
        yield f"written: {path}"


def verify_run(folder: Path, device: str) -> bool:
    """Verify a run again, a line a cell; False where anything failed, or where there was nothing to verify."""
    run = load_run(folder)
    failures = examples = boundary = cells_seen = 0
    for check in reverify(run, choose_device(device)):
        title = visible(check.title)
        examples, boundary = examples + check.examples, boundary + check.boundary
        if check.n:
            cells_seen += 1
            click.echo(
                f"{'FAILED' if check.failures else 'ok':<7}{title}: robust {100 * check.robust_accuracy:.1f} % of {check.n}, "
                f"{check.examples} examples, {check.boundary} on the boundary"
            )
        for failure in check.failures:
            failures += 1
            click.echo(f"FAILED {title}: {visible(failure)}")
        if check.absent:
            click.echo(f"absent {title}: {visible(check.absent)}")
    click.echo(
        f"{cells_seen} of {len(run.plan.cells)} cells, {examples} adversarial examples measured again: "
        f"{failures} failures, {boundary} within rounding of the boundary"
    )
    return failures == 0 and cells_seen > 0
