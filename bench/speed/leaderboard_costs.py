"""What a large leaderboard costs: `python -m gauntlet.bench.speed.leaderboard_costs RESULTS`.

Passes are recorded on a small network, and priced for a GPU as by `gauntlet speed --simulate`; files and bytes are those of a
results folder that is there. Both are multiplied by the numbers of models and images: everything beyond the samples that were run
is extrapolated, and the seconds are simulated.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from gauntlet.bench.run.run_folder import Run, load_run

_BLOCKS: Final = ("store", "packs")
_PER_IMAGE: Final = "clean"
_PER_CELL: Final = ("runs", "summaries", "history")


@dataclass(frozen=True)
class Storage:
    """Files and bytes of a results folder, and what they are for."""

    cells: int
    images: int
    """Of each cell."""
    files: Mapping[str, int]
    """By the folder at the top."""
    size: Mapping[str, int]
    """Bytes, by the folder at the top."""

    def extrapolated(self, cells: int, images: int) -> tuple[float, float]:
        """Files and bytes of so many cells of so many images. Blocks lie in packs, a pack and its index for each cell.

        Bytes of blocks grow with cells and images, clean images with the images alone, and what a run notes of a cell with both.
        """
        samples, more = self.cells * self.images, cells * images
        files = 2 * cells + self.files.get(_PER_IMAGE, 0) / self.images * images
        files += sum(self.files.get(name, 0) for name in _PER_CELL) / self.cells * cells
        size = sum(self.size.get(name, 0) for name in (*_BLOCKS, *_PER_CELL)) / samples * more
        return files, size + self.size.get(_PER_IMAGE, 0) / self.images * images


def storage(run: Run) -> Storage:
    """The storage of a folder with one run. Raises ValueError unless all of its cells are finished with as many samples."""
    counts = {sum(count for _, count in run.keys(cell) or []) for cell in run.plan.cells}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"{run.root} has cells of {sorted(counts)} samples: give a folder with one finished run")
    files: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for path in (Path(folder, name) for folder, _, names in os.walk(run.root) for name in names):
        top = path.relative_to(run.root).parts[0]
        files[top] += 1
        size[top] += path.stat().st_size
    return Storage(len(run.plan.cells), counts.pop(), files, size)


def pass_lines(models: int, images: int, samples: str) -> Iterator[str]:
    """Passes and simulated GPU hours of each attack as a table in Markdown."""
    import torch

    from gauntlet.attacks.ops.threat import ThreatModel
    from gauntlet.bench.speed.compare_speed import SpeedConfig, workload
    from gauntlet.bench.speed.comparisons import SIMULATED
    from gauntlet.bench.speed.device_costs import H200, NETWORKS
    from gauntlet.bench.speed.measure import torch_threads
    from gauntlet.bench.speed.simulate import priced, record_ours

    setup = SpeedConfig("cnn.pgd_digits", "digits", samples=samples, linf=0.2)
    networks = [network for network in NETWORKS if network.pixels > 1000]
    yield f"| attack | passes a sample | passes | {' | '.join(f'GPU hours, {one.name}' for one in networks)} |"
    yield f"| :-- | --: | --: |{' --: |' * len(networks)}"
    with torch_threads(1), torch.random.fork_rng():
        work = workload(setup)
        for row in SIMULATED:
            recording = record_ours(row, work, ThreatModel("Linf", setup.linf), "ours", "tf32")
            passes = sum(recording.run.passes) / work.total
            tables = [priced([recording], network, H200, work.total, len(work.ids)) for network in networks]
            seconds = [float(table["simulated_whole_s"].iloc[0]) / work.total for table in tables]
            hours = " | ".join(f"{models * images * one / 3600:,.3g}" for one in seconds)
            yield f"| `{row.ours}` | {passes:.1f} | {models * images * passes:.3g} | {hours} |"


@click.command()
@click.argument("results", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--models", default=200, show_default=True)
@click.option("--images", default=10_000, show_default=True)
@click.option("--samples", default="200", show_default=True, help="Digits on which the passes are recorded.")
def main(results: Path, models: int, images: int, samples: str) -> None:
    """Extrapolate passes, simulated GPU hours, files and bytes to so many models and images.

    RESULTS is a folder with one finished run, packed, from which files and bytes are taken.
    """
    for line in pass_lines(models, images, samples):
        click.echo(line)
    run = load_run(results)
    found = storage(run)
    attacks = len({cell.info.attack for cell in run.plan.cells})
    files, size = found.extrapolated(models * attacks, images)
    click.echo(f"\n{results}: {found.cells} cells of {found.images} samples")
    for name in (*_BLOCKS, _PER_IMAGE, *_PER_CELL):
        click.echo(f"  {name}: {found.files.get(name, 0)} files, {found.size.get(name, 0):,} bytes")
    click.echo(f"{models * attacks:,} cells of {images:,} samples: {files:,.0f} files, {size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
