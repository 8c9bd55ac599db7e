"""A stored run in lines of text: its cells, or one sample; and its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.run.pictures import Drawn, Gallery, NoPictureError, Patterns, sample_path
from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.report.formatting import with_interval
from gauntlet.leaderboard.report.terminal import terminal_table
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.results.record import DRAWS, CellResult
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.corruptions import describe_result
from gauntlet.leaderboard.stats.proportions import Proportion


def describe_run(folder: Path) -> Iterator[str]:
    """The leaderboard, then a line for each cell."""
    run = load_run(folder)
    results = run.results()
    yield from terminal_table(build_rows(results)).splitlines()
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
            cost = cells.costs(result)
            passes = f"{cost.forwards_per_sample:.1f}/{cost.backwards_per_sample:.1f} passes a sample"
            robust = f"robust {sum(int(block.samples.robust.sum()) for block in result.blocks)}"
            found = describe_result(result) if result.cell.corrupts else robust
            yield f"{title}: {found} of {n}, {cost.seconds:.2f} s, {passes}"
    yield f"{size / 2**20:.1f} MiB stored for this run in {run.root}"


def draw_pictures(folder: Path, patterns: Patterns, plugins: tuple[str, ...] = ()) -> Iterator[str]:
    """Write the pictures of every row that the patterns match; a line for each picture, or the reason why it is missing."""
    gallery = Gallery(load_run(folder, plugins))
    for row in gallery.rows(patterns):
        yield visible(row.title)
        for drawn in gallery.draw(row):
            yield f"  {_describe(drawn)}"


def describe_sample(
    folder: Path, sample: str, patterns: Patterns, *, pictures: bool, plugins: tuple[str, ...] = ()
) -> Iterator[str]:
    """A line on the sample with the id `sample` for each cell that the patterns match, and its pictures if `pictures`.

    Raises NoPictureError if no such cell has the sample.
    """
    gallery = Gallery(load_run(folder, plugins))
    seen = False
    for row in gallery.rows(patterns):
        lines = [line for cell in row.cells for line in _sample_lines(cell, gallery.result(cell), sample)]
        if not lines:
            continue
        seen = True
        yield visible(row.title)
        yield from (f"  {line}" for line in lines)
        if pictures:
            drawn = gallery.draw_sample(row, sample)
            yield "  no picture: no attack broke the sample" if drawn is None else f"  {_describe(drawn)}"
        elif sample_path(row, sample).is_file():
            yield f"  picture: {sample_path(row, sample)}"
    if not seen:
        raise NoPictureError(
            f"sample {sample!r} is in no finished block of these cells: correct --sample; ids are those of the data set, such as "
            f"{_some_ids(gallery)}"
        )


def _sample_lines(cell: Cell, result: CellResult, sample: str) -> Iterator[str]:
    for block in result.blocks:
        found = block.samples
        for row in np.flatnonzero(found.id == sample).tolist():
            clean, label = int(found.clean_prediction[row]), int(found.label[row])
            parts = [f"label {label}", f"clean {clean}" if clean != label else "clean right"]
            if np.isnan(found.distance[row]):
                parts.append("not attacked" if clean != label else "no example found")
            else:
                parts.append(f"adversarial {int(found.prediction[row])} at {cell.info.norm} {found.distance[row]:.4g}")
                parts[-1] += " (beyond eps)" if found.robust[row] else ""
            parts.append("robust" if found.robust[row] else "not robust")
            parts.append(f"margin {found.margin[row]:.4g}")
            if found.stage and found.stage[row]:
                parts.append(f"broken by stage {found.stage[row]}")
            if cell.info.randomised:
                wrong = Proportion(round(DRAWS * float(found.wrong_share_scored[row])), DRAWS)
                parts.append(f"wrong in {with_interval(wrong)} % of {DRAWS} fresh draws")
            parts.append(f"{found.forwards[row]:.0f} + {found.backwards[row]:.0f} passes")
            seed = f" (seed {cell.info.seed})" if cell.info.seed else ""
            yield f"{visible(cell.info.attack)}{seed}: {', '.join(map(visible, parts))}"


def _some_ids(gallery: Gallery) -> str:
    ids = (
        str(name)
        for cell in gallery.run.plan.cells
        for block in gallery.result(cell).blocks
        for name in block.samples.id
    )
    return ", ".join(repr(name) for name in islice(dict.fromkeys(ids), 3)) or "(nothing is stored yet)"


def _describe(drawn: Drawn) -> str:
    return f"not drawn: {drawn.path.name}: {visible(drawn.missing)}" if drawn.missing else f"written: {drawn.path}"
