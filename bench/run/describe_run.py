"""Describing a stored run in lines of text: its cells or a sample; and drawing its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.run.named_code import refuse_code
from gauntlet.bench.run.pictures import Gallery, NoPictureError, Patterns, WrittenPicture, sample_path
from gauntlet.bench.run.run_folder import Run, load_run
from gauntlet.leaderboard.pictures.canvas import Form
from gauntlet.leaderboard.report.cell_text import attack_settings, describe_cell, settings_lines
from gauntlet.leaderboard.report.formatting import with_interval
from gauntlet.leaderboard.report.terminal import terminal_report, terminal_width
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.results.record import DRAWS, CellError, CellResult
from gauntlet.leaderboard.results.summary import CellSummary, summarise
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.stats.proportions import Proportion


class UnknownAttackError(LookupError):
    """No attack of the run matches."""


def describe_run(folder: Path) -> Iterator[str]:
    """The leaderboard, then a line for each cell. Cells whose files are damaged are in error.

    Raises StoreError in the end if a file is damaged.
    """
    run = load_run(folder)
    results, damaged = _readable_results(run)
    yield from terminal_report(build_rows(results), "command line", terminal_width(), checks=run.context.checks)
    yield ""
    size = 0
    for cell, result in zip(run.plan.cells, results, strict=True):
        size += sum(run.store.size(block.key) for block in result.blocks)
        title, n = visible(run.plan.title(cell)), len(result)
        if result.error is not None:
            yield f"{title}: ERROR {result.error.kind}: {visible(result.error.message)}"
        elif result.status == "unfinished":
            # The number of samples is known once a cell was prepared, which an interrupted run did not reach.
            yield (
                f"{title}: not finished, {n} of {result.expected} samples"
                if result.expected
                else f"{title}: not started"
            )
        else:
            cost = result.costs
            passes = f"{cost.forwards_per_sample:.1f}/{cost.backwards_per_sample:.1f} passes a sample"
            yield f"{title}: {describe_cell(result)}, {cost.seconds:.2f} s, {passes}"
    yield f"{size / 2**20:.1f} MiB stored for this run in {run.root}"
    if damaged is not None:
        raise damaged


def _readable_results(run: Run) -> tuple[list[CellSummary], StoreError | None]:
    """The summaries of all cells, those that cannot be read in error; and the first such error."""
    results, first = [], None
    for cell in run.plan.cells:
        try:
            results.append(run.summary(cell))
        except StoreError as problem:
            first = first or problem
            error = CellError(cell.info, type(problem).__name__, str(problem))
            results.append(summarise(CellResult(cell.info, (), error)))
    return results, first


def describe_attacks(folder: Path, patterns: Patterns) -> Iterator[str]:
    """The settings of the attacks that the patterns match, in full, with the stages that were chosen for a pipeline.

    The attack may also be the name and digest of a cascade, as tables have it. Raises UnknownAttackError if none matches.
    """
    run = load_run(folder)
    cascades = [cell for cell in run.plan.cells if attack_settings(cell.info.attack_spec) == patterns.attack]
    matching = cascades or [cell for cell in run.plan.cells if patterns.match(cell)]
    if not matching:
        known = ", ".join(dict.fromkeys(cell.info.attack for cell in run.plan.cells))
        raise UnknownAttackError(f"--attack {patterns.attack!r} matches no attack of this run: it has {known}")
    settings: dict[tuple[str, str, str], dict[str, None]] = {}
    for cell in matching:
        stages = ", ".join(f"{stage} ({how})" for stage, how in run.result(cell).cell.techniques.items() if stage)
        info = cell.info
        chosen = settings.setdefault((info.attack, info.threat, info.attack_spec), {})
        if stages and not info.attack_spec.count("Stage("):
            chosen[f"stages: {stages}"] = None
    for (label, threat, spec), chosen in settings.items():
        digest = attack_settings(spec)
        yield visible(f"{label}, {threat}" + (f": {digest}" if digest != spec else ""))
        yield from (f"  {visible(line)}" for line in (*settings_lines(spec), *chosen))


def draw_pictures(
    folder: Path,
    patterns: Patterns,
    plugins: tuple[str, ...] = (),
    *,
    trust: bool = False,
    form: Form = "png",
) -> Iterator[str]:
    """Draw the pictures of every row that the patterns match. Yields the path of each picture, or why it is missing.

    Raises UntrustedCodeError where the data or plugins of the run are code, unless `trust`.
    """
    run = load_run(folder, plugins)
    refuse_code(run, trust=trust, by_hand=bool(plugins), models=False)
    gallery = Gallery(run, form=form)
    for row in gallery.rows(patterns):
        yield visible(row.title)
        for picture in gallery.draw(row):
            yield f"  {_describe(picture)}"


def describe_sample(
    folder: Path,
    sample: str,
    patterns: Patterns,
    *,
    pictures: bool,
    plugins: tuple[str, ...] = (),
    trust: bool = False,
) -> Iterator[str]:
    """A line for each cell that has the sample and matches the patterns. `pictures`: draw the sample, too.

    Raises NoPictureError if no matching cell has the sample, and with `pictures` UntrustedCodeError as `draw_pictures` does.
    """
    run = load_run(folder, plugins)
    refuse_code(run, trust=trust or not pictures, by_hand=bool(plugins), models=False)
    gallery = Gallery(run)
    has_sample = False
    for row in gallery.rows(patterns):
        lines = [line for cell in row.cells for line in _sample_lines(cell, gallery.result(cell), sample)]
        if not lines:
            continue
        has_sample = True
        yield visible(row.title)
        yield from (f"  {line}" for line in lines)
        if pictures:
            picture = gallery.draw_sample(row, sample)
            yield "  no picture: no attack broke the sample" if picture is None else f"  {_describe(picture)}"
        elif sample_path(row, sample).is_file():
            yield f"  picture: {sample_path(row, sample)}"
    if not has_sample:
        raise NoPictureError(
            f"sample {sample!r} is in no finished block of these cells: correct --sample; ids are those of the data set, such as "
            f"{_some_ids(gallery)}"
        )


def _sample_lines(cell: Cell, result: CellResult, sample: str) -> Iterator[str]:
    for block in result.blocks:
        samples = block.samples
        for row in np.flatnonzero(samples.id == sample).tolist():
            clean, label = int(samples.clean_prediction[row]), int(samples.label[row])
            parts = [f"label {label}", f"clean {clean}" if clean != label else "clean correct"]
            if np.isnan(samples.distance[row]):
                parts.append("not attacked" if clean != label else "no example found")
            else:
                parts.append(
                    f"adversarial {int(samples.prediction[row])} at {cell.info.norm} {samples.distance[row]:.4g}"
                )
                parts[-1] += " (beyond eps)" if samples.robust[row] else ""
            parts.append("robust" if samples.robust[row] else "not robust")
            parts.append(f"margin {samples.margin[row]:.4g}")
            if samples.stage and samples.stage[row]:
                parts.append(f"broken by stage {samples.stage[row]}")
            if cell.info.randomised:
                wrong = Proportion(round(DRAWS * float(samples.wrong_share_scored[row])), DRAWS)
                parts.append(f"wrong in {with_interval(wrong)} % of {DRAWS} fresh draws")
            parts.append(f"{samples.forwards[row]:.0f} + {samples.backwards[row]:.0f} passes")
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


def _describe(picture: WrittenPicture) -> str:
    if picture.missing:
        return f"not drawn: {picture.path.name}: {visible(picture.missing)}"
    return f"written: {picture.path}"
