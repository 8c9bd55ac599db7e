"""Verifying a stored run from its files alone: models and data are loaded again, and every example is measured again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from gauntlet.attacks.ops.rounding import lead, resolution
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.environment.foreign_exit import exits_reported
from gauntlet.bench.executors.executable import Block, Prepared
from gauntlet.bench.executors.remeasure import Remeasured
from gauntlet.bench.prepare.prepare import Workbench
from gauntlet.bench.registry.plugin_files import load_recorded
from gauntlet.bench.run.run_folder import Run
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.leaderboard.report.cells_csv import read_cells
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.measurements import Measurements
from gauntlet.leaderboard.results.record import Record

BOUNDARY = 1e-4
"""A prediction that flips within this share of the block's largest clean margin is attributed to rounding."""


@dataclass(frozen=True)
class CellCheck:
    """The outcome of verifying a cell."""

    title: str
    n: int
    """Number of verified samples."""
    robust_accuracy: float
    """Share of robust samples among the verified samples; NaN if nothing is stored."""
    examples: int
    """Number of adversarial examples that were measured."""
    boundary: int
    """Number of predictions that flipped within the rounding margin: reported, but not failures."""
    failures: tuple[str, ...]
    absent: str = ""
    """What could not be verified, and why."""
    missing: int = 0
    """Number of blocks that are not stored."""


def reverify(run: Run, device: torch.device, progress: Callable[[], None] | None = None) -> Iterator[CellCheck]:
    """Verify every cell of a run, in order. Damaged or altered files are failures of their cell.

    Raises PluginError if a plugin of the run cannot be loaded.
    """
    load_recorded(run.plugins)
    # The checks are part of the keys; none is run here.
    workbench = Workbench(device, checks=run.context.checks or "default")
    written = _written(run)
    for cell in run.plan.cells:
        yield _cell(run, workbench, cell, written)
        if progress is not None:
            progress()


def _cell(run: Run, workbench: Workbench, cell: Cell, written: dict[str, float]) -> CellCheck:
    title = run.plan.title(cell)

    def nothing_verified(failure: str = "", absent: str = "") -> CellCheck:
        return CellCheck(title, 0, float("nan"), 0, 0, (failure,) if failure else (), absent)

    try:
        keys = run.keys(cell)
        error = run.store.read_error(cell.name)
        if keys is None or not any(run.store.has(key) for key, _ in keys):
            return nothing_verified(absent=f"in error: {error.message}" if error else "not run yet")
        # The stored measurements, perhaps of another machine, chose the stages.
        measured = Measurements(run.root).of_cell(cell.pipeline_name)
        form = _precision(run, [key for key, _ in keys])
        with exits_reported():
            prepared = workbench.prepare(cell, measured=measured, recorded=form)
    except Exception as problem:
        # A user's model and data may raise anything; the other cells can still be verified.
        return nothing_verified(failure=f"cannot be rebuilt: {_describe(problem)}")
    if not prepared.attack.repeatable and len(keys) == len(prepared.blocks):
        # The folder may now hold more examples than the replay tried: take the recorded keys.
        recorded = [
            Block(key, block.indices, block.data) for (key, _), block in zip(keys, prepared.blocks, strict=True)
        ]
        prepared = replace(prepared, blocks=tuple(recorded))
    if [key for key, _ in keys] != [block.key for block in prepared.blocks]:
        return nothing_verified(
            failure="the model, its weights, the data or the attack have changed since the run: their content hash differs. "
            "Verify in the folder of the run, with its files"
        )
    failures: list[str] = []
    examples = boundary = n = robust = 0
    missing = not_kept = 0
    for block in prepared.blocks:
        if not run.store.has(block.key):
            missing += 1
            continue
        try:
            record = run.store.read(block.key, adversarial=True)
            with exits_reported():
                remeasured = _block(prepared, block, record)
        except StoreError as problem:
            failures.append(str(problem))
            continue
        except Exception as problem:
            failures.append(f"{run.store.path(block.key)} cannot be measured again: {_describe(problem)}")
            continue
        failures += remeasured.failures
        examples, boundary = examples + remeasured.examples, boundary + remeasured.boundary
        not_kept += remeasured.not_kept
        n, robust = n + len(record.samples), robust + remeasured.robust
    accuracy = robust / n if n else float("nan")
    in_table = written.get(_identity(cell))
    if in_table is not None and not missing and not failures and abs(in_table - accuracy) > 1e-9:
        failures.append(f"cells.csv has robust accuracy {in_table:.4f}, but the stored examples give {accuracy:.4f}")
    absent = [f"{missing} of {len(prepared.blocks)} blocks not run yet"] if missing else []
    absent += [f"{not_kept} examples were not kept (--no-adversarials)"] if not_kept else []
    return CellCheck(title, n, accuracy, examples, boundary, tuple(failures), "; ".join(absent), missing)


def _precision(run: Run, keys: Sequence[str]) -> str | None:
    """The form that was attacked, from the first readable block: this device might choose another form."""
    for key in keys:
        if run.store.has(key):
            with suppress(StoreError):
                return run.store.read(key).cell.precision
    return None


def _block(prepared: Prepared, block: Block, record: Record) -> Remeasured:
    """Compare a block with the data, and measure its clean images and examples again."""
    data, samples, cell = prepared.data, record.samples, prepared.cell
    rows = list(block.indices)
    ids = [data.ids[row] for row in rows]
    expected = list(zip(ids, data.labels[rows].tolist(), strict=True))
    stored = list(zip(samples.id.tolist(), samples.label.tolist(), strict=True))
    if stored != expected:
        first = next((i for i, pair in enumerate(expected) if i >= len(stored) or stored[i] != pair), len(expected) - 1)
        return Remeasured([f"{ids[first]}: id or label in block {record.key[:12]} does not match the data"], 0, 0, 0, 0)
    verify = Verifier.of(prepared, rows)
    clean = verify.measure(verify.images, torch.arange(len(rows), device=prepared.device))
    logits = verify.logits(verify.images)
    ahead = lead(logits)
    slack = (BOUNDARY * ahead.amax() + resolution(logits, verify.labels)).double().cpu().numpy()
    flipped = np.flatnonzero(clean.prediction.numpy() != samples.clean_prediction)
    clear = [row for row in flipped if float(ahead[row]) > slack[row]]
    again = prepared.attack.remeasure(prepared, verify, samples, slack)
    failures = list(again.failures)
    if clear and not cell.info.randomised:
        failures.insert(
            0, f"{ids[clear[0]]}: clean prediction {int(clean.prediction[clear[0]])} differs from the stored prediction"
        )
    if again.mismatch and not failures:
        failures.append(again.mismatch)
    return replace(again, failures=failures)


def _describe(problem: Exception) -> str:
    return str(problem) if isinstance(problem, StoreError | ValueError) else f"{type(problem).__name__}: {problem}"


def table_problem(run: Run) -> str:
    """Why cells.csv, with which verification compares what it measures, cannot be read; empty if it can, or is not there."""
    try:
        _read_table(run)
    except StoreError as problem:
        return str(problem)
    return ""


def _written(run: Run) -> dict[str, float]:
    """Robust accuracies in cells.csv by cell; empty if the file does not exist, or cannot be read."""
    try:
        return _read_table(run)
    except StoreError:
        return {}


def _read_table(run: Run) -> dict[str, float]:
    """Robust accuracies in cells.csv by cell. Raises StoreError where the file is damaged."""
    path = run.root / "cells.csv"
    if not path.is_file():
        return {}
    try:
        return _accuracies(read_cells(path))
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as problem:
        raise StoreError(
            f"{path} is damaged ({type(problem).__name__}: {problem}): write it again by gauntlet leaderboard {run.root}"
        ) from problem


def _accuracies(frame: pd.DataFrame) -> dict[str, float]:
    if missing := {*_IDENTITY, "status", "robust_accuracy"} - set(frame.columns):
        raise ValueError(f"it has no column {min(missing)}")
    accuracies = {}
    for row in frame.to_dict("records"):
        if row["status"] == "ok":
            accuracies["\0".join(str(row[name]) for name in _IDENTITY)] = float(row["robust_accuracy"])
    return accuracies


_IDENTITY = ("model", "defense", "attack", "threat", "data", "seed")


def _identity(cell: Cell) -> str:
    return "\0".join(str(getattr(cell.info, name)) for name in _IDENTITY)
