"""Seconds and memory of commands on stored results, on made-up stores: `python -m gauntlet.bench.speed.stored_results`."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from gauntlet.bench.speed.synthetic_store import ATTACKS, StoreSize, make_store

_MEASURED = """
import resource
from gauntlet.bench.cli.main import main
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""

_BETWEEN = 0.02
"""Seconds between two looks at a process's memory."""


@dataclass(frozen=True)
class CommandCost:
    """The cost of a command in a process of its own, its start included."""

    seconds: float
    """Wall-clock time."""
    cpu_seconds: float
    """Of all its threads, in user and system mode: what other processes on the machine change least."""
    peak_mib: float
    """Peak resident memory of its first process."""


def command_cost(*arguments: str) -> CommandCost:
    """Run `gauntlet` with these arguments on one thread. Raises CalledProcessError if it fails."""
    before, began, peak = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), 0
    call = [sys.executable, "-c", _MEASURED, *arguments]
    with subprocess.Popen(  # noqa: S603
        call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        while True:
            try:
                output, errors = process.communicate(timeout=_BETWEEN)
                break
            except subprocess.TimeoutExpired:
                # A run sets its peak back at every block, and with it what it says of itself at its end.
                peak = max(peak, _peak_kib(process.pid))
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, call, output, errors)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return CommandCost(seconds, cpu, max(peak, int(output.split()[-1])) / 1024)


def _peak_kib(process: int) -> int:
    """The peak of a process's resident memory since it was set back last, where the system says it; 0 elsewhere."""
    with suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(encoding="utf-8")):
            return int(found[1])
    return 0


def leaderboard_costs(folder: Path, size: StoreSize) -> list[tuple[str, CommandCost]]:
    """The costs of `gauntlet leaderboard` from nothing, after one new row, and where nothing is new.

    Makes a store of that size in `folder`. Raises CalledProcessError, and ValueError as `make_store`.
    """
    run = make_store(folder, size)
    costs = [("from nothing", command_cost("leaderboard", str(folder)))]
    for cell in run.plan.cells[: size.attacks]:
        for key, _ in run.keys(cell) or []:
            # A row whose blocks are new: their summaries are no longer those of these files.
            os.utime(run.store.path(key), ns=(time.time_ns(), time.time_ns() - 60 * 10**9))
    costs.append(("after one new row", command_cost("leaderboard", str(folder))))
    return [*costs, ("nothing new", command_cost("leaderboard", str(folder)))]


def lines(size: StoreSize, costs: Sequence[tuple[str, CommandCost]]) -> list[str]:
    """A table in Markdown."""
    cells = f"{size.models * size.attacks:,} cells × {size.samples:,} samples"
    head = [f"| {cells} | CPU seconds | wall seconds | peak MiB |", "| :-- | --: | --: | --: |"]
    return head + [
        f"| {name} | {cost.cpu_seconds:.1f} | {cost.seconds:.1f} | {cost.peak_mib:.0f} |" for name, cost in costs
    ]


@click.command()
@click.option("--models", default=200, show_default=True)
@click.option("--attacks", default=len(ATTACKS), show_default=True, help=f"At most {len(ATTACKS)}.")
@click.option("--samples", default=1000, show_default=True)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where to make the store. [default: a temporary folder]"
)
def main(models: int, attacks: int, samples: int, folder: Path | None) -> None:
    """Measure `gauntlet leaderboard` on a made-up store of so many models, attacks and samples."""
    size, place = StoreSize(models, attacks, samples), folder or Path(tempfile.mkdtemp(prefix="gauntlet-"))
    try:
        for line in lines(size, leaderboard_costs(place, size)):
            click.echo(line)
    finally:
        if folder is None:
            shutil.rmtree(place)


if __name__ == "__main__":
    main()
