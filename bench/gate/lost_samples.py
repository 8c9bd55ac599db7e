"""The details of lost robustness: the ids of lost samples, a picture of some, and the commands that reproduce it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gauntlet.attacks.registry.settings import Named
from gauntlet.attacks.registry.suites import SUITES
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.gate.early_run import cell_key
from gauntlet.bench.run.pictures import Gallery
from gauntlet.bench.run.run_folder import Run
from gauntlet.leaderboard.gate.baseline import Key
from gauntlet.leaderboard.gate.report import CellVerdict, GateReport
from gauntlet.leaderboard.gate.trace import Trace
from gauntlet.leaderboard.pictures.canvas import PicturesMissingError
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.errors import WriteError
from gauntlet.leaderboard.results.record import CellResult

_MOST_PICTURES = 10
"""Largest number of cells with a picture; each takes about a second."""
_PRECISIONS = {"bf16": "bfloat16", "fp16": "float16", "float32": "float32"}
"""The value of --precision for a part of the name of a model's form; other forms come from `auto`."""
_IN_MEMORY = "memory:model."
"""Prefix of the specs of models given to `gauntlet.evaluate`, which no command can load."""


def detailed(report: GateReport, run: Run, traces: Sequence[Trace] = ()) -> tuple[GateReport, list[str]]:
    """The report with the ids of lost samples, pictures of some, and the commands that attack a cell again or show a sample.

    Pictures of the first cells that regressed are written into the results folder. The second value says why some are missing.
    `traces` are those of cells that were not attacked to the end.
    """
    known, seen = {cell_key(cell.info): cell for cell in run.plan.cells}, {trace.key: trace for trace in traces}
    told = [
        _detailed(one, run, known[one.key], seen.get(one.key)) if one.key in known else one for one in report.verdicts
    ]
    drawn, reasons = _drawn(
        told, Gallery(run, {known[key].name: _part(run, seen[key], known[key]) for key in seen}), known
    )
    pictured = tuple(replace(one, picture=drawn.get(one.key, "")) if one.key else one for one in told)
    return replace(report, verdicts=pictured), reasons


def _part(run: Run, trace: Trace, cell: Cell) -> CellResult:
    """The result of a cell that a gate stopped early."""
    return CellResult(cell.info, tuple(run.store.read(key) for key in trace.records), None, trace.n)


def _detailed(verdict: CellVerdict, run: Run, cell: Cell, trace: Trace | None) -> CellVerdict:
    if trace is not None:
        again = again_command(cell, Path(f"{run.root}-again"), cell.info.precision)
        return replace(verdict, lost_ids=trace.lost, reproduce=again)
    found = run.result(cell)
    ids = cells.outcomes(found).id.tolist() if cells.status(found) == "ok" else []
    lost = tuple(ids[at] for at in verdict.lost_at) if ids else ()
    again = again_command(cell, Path(f"{run.root}-again"), cells.precision(found))
    return replace(verdict, lost_ids=lost, reproduce=again, show=show_command(cell, run.root, lost[0]) if lost else "")


def again_command(cell: Cell, out: Path, precision: str) -> str:
    """The command that attacks this cell alone, into the folder `out`, so that the run stays as it is.

    `precision` is the form of the attacked model. Empty for a model in memory. Relative paths are relative to the working folder
    of the run.
    """
    model, data = cell.model, cell.data
    if model.spec.startswith(_IN_MEMORY):
        return ""
    numbers = {name: ",".join(map(repr, value)) for name in ("mean", "std") if (value := getattr(model, name))}
    options = {
        "model": model.spec,
        "weights": model.weights,
        **numbers,
        "defense": str(cell.defense),
        "attacks": _attack(cell.attack),
        "threat": str(cell.threat),
        "data": data.spec,
        "samples": data.samples,
        "seed": str(cell.info.seed),
        "precision": next((_PRECISIONS[part] for part in precision.split("+") if part in _PRECISIONS), "auto"),
        "out": str(out),
    }
    given = [part for name, value in options.items() if value is not None for part in (f"--{name}", value)]
    return shlex.join(["gauntlet", "run", *given])


def _attack(attack: Named) -> str:
    """The attack as a value of --attacks; brackets tell it from a suite of the same name."""
    return f"{attack}()" if str(attack) in SUITES else str(attack)


def show_command(cell: Cell, root: Path, sample: str) -> str:
    """The command that shows the results of a sample."""
    info = cell.info
    names = ("--model", info.model, "--defense", info.defense, "--attack", info.attack)
    return shlex.join(["gauntlet", "show", str(root), "--sample", sample, *names])


def _drawn(
    verdicts: Sequence[CellVerdict], gallery: Gallery, known: dict[Key, Cell]
) -> tuple[dict[Key, str], list[str]]:
    """Paths of the pictures by cell, and the reasons why others are missing."""
    paths: dict[Key, str] = {}
    reasons: dict[str, None] = {}
    regressed = [one for one in verdicts if one.verdict == "regressed" and one.key and one.lost_ids]
    for verdict in regressed[:_MOST_PICTURES]:
        assert verdict.key is not None
        try:
            picture = gallery.draw_lost(known[verdict.key], verdict.lost_ids)
        except (PicturesMissingError, WriteError, OSError) as error:
            return paths, [str(error)]
        if picture is None:
            reasons["no lost sample has an adversarial example: they are misclassified without an attack"] = None
        elif picture.missing:
            reasons[picture.missing] = None
        else:
            paths[verdict.key] = str(picture.path)
    return paths, list(reasons)
