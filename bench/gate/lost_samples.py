"""Details on lost robustness for a gate's report: ids and pictures of lost samples, and commands that reproduce the loss."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.gate.early_run import attacked_part, cell_key
from gauntlet.bench.planning.row_command import attack_option, pairing_options, run_command
from gauntlet.bench.run.pictures import Gallery
from gauntlet.bench.run.run_folder import Run
from gauntlet.bench.worker.seam import Work
from gauntlet.leaderboard.gate.baseline import Key
from gauntlet.leaderboard.gate.report import CellVerdict, GateReport
from gauntlet.leaderboard.gate.trace import Trace
from gauntlet.leaderboard.pictures.canvas import PicturesMissingError
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.errors import WriteError

_MOST_PICTURES = 10
"""Largest number of pictures; each takes about a second."""
_PRECISIONS = {"bf16": "bfloat16", "fp16": "float16", "tf32": "tf32", "float32": "float32"}
"""Value of --precision by a part of the name of the model's form; forms without such a part are `auto`'s choice."""


def detailed(
    report: GateReport, run: Run, traces: Sequence[Trace] = (), work: Work | None = None
) -> tuple[GateReport, list[str]]:
    """Add the ids of lost samples, pictures, and commands that attack a cell again or show a sample to the report.

    Pictures are drawn into the results folder, for the first cells that regressed. Returns the report, and the reasons why
    pictures are missing. `traces`: of the cells in which the gate stopped early. `work`: draws them; default, this process.
    """
    planned, by_key = {cell_key(cell.info): cell for cell in run.plan.cells}, {trace.key: trace for trace in traces}
    verdicts = [
        _detailed(verdict, run, planned[verdict.key], by_key.get(verdict.key)) if verdict.key in planned else verdict
        for verdict in report.verdicts
    ]
    attacked = {planned[key].name: attacked_part(run, trace, planned[key]) for key, trace in by_key.items()}
    pictures, reasons = _pictures(verdicts, Gallery(run, attacked, work), planned)
    pictured = tuple(
        replace(verdict, picture=pictures.get(verdict.key, "")) if verdict.key else verdict for verdict in verdicts
    )
    return replace(report, verdicts=pictured), reasons


def _detailed(verdict: CellVerdict, run: Run, cell: Cell, trace: Trace | None) -> CellVerdict:
    if trace is not None:
        again = again_command(cell, Path(f"{run.root}-again"), cell.info.precision)
        return replace(verdict, lost_ids=tuple(trace.lost_ids[at] for at in verdict.lost_at), reproduce=again)
    result = run.result(cell)
    ids = cells.outcomes(result).id.tolist() if cells.status(result) == "ok" else []
    lost = tuple(ids[at] for at in verdict.lost_at) if ids else ()
    again = again_command(cell, Path(f"{run.root}-again"), cells.precision(result))
    return replace(verdict, lost_ids=lost, reproduce=again, show=show_command(cell, run.root, lost[0]) if lost else "")


def again_command(cell: Cell, out: Path, precision: str) -> str:
    """The command that attacks this cell again, alone and into the folder `out`, so that the run is kept.

    Empty for a model that was given in memory. `precision`: the form of the model that was attacked. Relative paths are
    relative to the run's working folder.
    """
    options = pairing_options(cell, attack_option(cell.attack))
    if options is None:
        return ""
    options["precision"] = next((_PRECISIONS[part] for part in precision.split("+") if part in _PRECISIONS), "auto")
    return run_command({**options, "out": str(out)}, ["--compile"] if "compiled" in precision.split("+") else [])


def show_command(cell: Cell, root: Path, sample: str) -> str:
    """The command that shows a sample's outcome."""
    info = cell.info
    names = ("--model", info.model, "--defense", info.defense, "--attack", info.attack)
    return shlex.join(["gauntlet", "show", str(root), "--sample", sample, *names])


def _pictures(
    verdicts: Sequence[CellVerdict], gallery: Gallery, planned: dict[Key, Cell]
) -> tuple[dict[Key, str], list[str]]:
    """Paths of the pictures by the cells' keys, and the reasons why others are missing."""
    paths: dict[Key, str] = {}
    reasons: dict[str, None] = {}
    regressed = [verdict for verdict in verdicts if verdict.verdict == "regressed" and verdict.key and verdict.lost_ids]
    for verdict in regressed[:_MOST_PICTURES]:
        assert verdict.key is not None
        try:
            picture = gallery.draw_lost(planned[verdict.key], verdict.lost_ids)
        except (PicturesMissingError, WriteError, OSError) as error:
            return paths, [str(error)]
        if picture is None:
            reasons["no lost sample has an adversarial example: all are misclassified when clean"] = None
        elif picture.missing:
            reasons[picture.missing] = None
        else:
            paths[verdict.key] = str(picture.path)
    return paths, list(reasons)
