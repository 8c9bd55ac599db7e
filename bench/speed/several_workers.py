"""What two workers of a Ray cluster gain, beside two shard processes: `python -m gauntlet.bench.speed.several_workers`.

Each way runs the same cells into a folder of its own, and then once more, when everything is stored: what that takes (start,
loading, preparing, tables) is subtracted. The ways take turns, so that a machine which is busy at times is so for all of them.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import click

_CELLS: Final = (
    "--model=cnn.standard_digits,cnn.pgd_digits,cnn.trades_digits --data=digits --device=cpu --checks=none "
    "--attacks=pgd(steps=100,restarts=2),apgd(steps=100,restarts=2),square(queries=1500)"
)
_START: Final = (sys.executable, "-c", "from gauntlet.bench.cli.main import entry; entry()", "run")


@dataclass(frozen=True)
class Way:
    """How cells are run: the options of each process; all processes run at once, into one folder."""

    name: str
    processes: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Measured:
    """Seconds of a way, and how busy the machine was."""

    name: str
    seconds: float
    """From the start to the end, less the same with all results stored."""
    start: float
    """What was subtracted."""
    load: float
    """Processes that wanted to run, on average over the last minute (the way's own included)."""


def measure(way: Way, cells: Sequence[str], folder: Path) -> Measured:
    """Run a way twice. Raises CalledProcessError where a process fails."""
    ends = _seconds(way, cells, folder)
    load = os.getloadavg()[0]
    starts = _seconds(way, cells, folder)
    # Of processes side by side the slowest counts.
    spent = [end - start for end, start in zip(ends, starts, strict=True)]
    slowest = spent.index(max(spent))
    return Measured(way.name, spent[slowest], starts[slowest], load)


def _seconds(way: Way, cells: Sequence[str], folder: Path) -> list[float]:
    """The seconds of each process of a way, which start together."""
    began = time.perf_counter()
    # Linux may share a busy machine out by sessions: each process has its own, as workers of Ray have.
    running = [
        subprocess.Popen(  # noqa: S603
            [*_START, *cells, f"--out={folder}", *own],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        for own in way.processes
    ]
    ended: dict[int, float] = {}
    while len(ended) < len(running):
        for number, process in enumerate(running):
            if number not in ended and process.poll() is not None:
                ended[number] = time.perf_counter() - began
        time.sleep(0.02)
    for process in running:
        assert process.stderr is not None
        with process.stderr as said:
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, process.args, stderr=said.read())
    return [ended[number] for number in range(len(running))]


@contextmanager
def cluster(workers: int) -> Iterator[str]:
    """The address of a Ray cluster on this machine with so many CPUs."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": workers, "include_dashboard": False})
    try:
        yield made.address
    finally:
        made.shutdown()  # type: ignore[no-untyped-call]


def compare(ways: Sequence[Way], cells: Sequence[str], repeats: int, tell: Callable[[Measured], None]) -> list[float]:
    """The median seconds of each way, over so many turns."""
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    with tempfile.TemporaryDirectory(prefix="gauntlet-workers-") as place:
        for _ in range(repeats):
            for way in ways:
                folder = Path(place, "out")
                found = measure(way, cells, folder)
                shutil.rmtree(folder)
                tell(found)
                seconds[way.name].append(found.seconds)
    return [median(several) for several in seconds.values()]


@click.command()
@click.option("--cells", default=_CELLS, show_default=True, help="Options that name the cells.")
@click.option("--workers", default=2, show_default=True, help="Number of workers, and of shards.")
@click.option("--repeats", default=3, show_default=True, help="Turns of each way.")
def main(cells: str, workers: int, repeats: int) -> None:
    """Compare shard processes with as many workers of a Ray cluster on the same cells."""
    with cluster(workers) as address:
        ways = (
            Way("shards", tuple((f"--shard={number}/{workers}",) for number in range(1, workers + 1))),
            Way("ray", ((f"--ray={address}",),)),
        )

        def tell(found: Measured) -> None:
            click.echo(f"{found.name}: {found.seconds:.1f} s (start {found.start:.1f} s, load {found.load:.1f})")

        shards, ray = compare(ways, shlex.split(cells), repeats, tell)
    click.echo(f"{workers} workers on Ray gain {shards / ray:.2f} of what {workers} shards gain")


if __name__ == "__main__":
    main()
