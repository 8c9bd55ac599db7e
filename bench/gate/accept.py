"""Accepting a stored run as a baseline, with its examples and weights on request."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from gauntlet.bench.environment.clock import now
from gauntlet.bench.gate.artifact import pack
from gauntlet.bench.gate.early_run import cell_key, gated
from gauntlet.bench.prepare.prepare import Workbench
from gauntlet.bench.registry.plugin_files import load_recorded
from gauntlet.bench.run.run_folder import Run, load_run
from gauntlet.leaderboard.gate.baseline import ArtifactRef, Baseline, BaselineError, Key, Test, baseline_of, diff
from gauntlet.leaderboard.gate.baseline_file import read_baseline, write_baseline
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.escape import visible

BASELINES = Path("bench", "baselines")
"""Folder of the baselines in the working folder, with a file for each suite."""


class AcceptError(ValueError):
    """A run that cannot become a baseline; the message says why and what to do."""


@dataclass(frozen=True)
class Accepted:
    """A baseline that was written."""

    path: Path
    baseline: Baseline
    changes: tuple[str, ...] | None
    """Sentences on the changes from the replaced file; None if there was none."""


def snapshot(run: Run, reason: str = "") -> Baseline:
    """The baseline of a stored run without its replays, whatever the state of its cells. Raises StoreError, BaselineError."""
    results = [run.result(cell) for cell in gated(run.plan.cells)]
    # Several suites of a run make one baseline: a run is accepted and judged as a whole.
    suite = "+".join(sorted({one.cell.suite for one in results}))
    return baseline_of(results, suite=suite, commit=cells.newest_commit(results), reason=reason, created=now())


def accept(
    folder: Path,
    *,
    reason: str = "",
    out: Path | None = None,
    test: Test | None = None,
    artifact: bool = False,
) -> Accepted:
    """Make the run in `folder` the baseline of its suite, in `out` or in `BASELINES`.

    `test` is the test of later gates; None keeps that of the replaced file, or takes `fixed`. `artifact` also writes the examples
    and the weights of the models. Raises AcceptError for a run with errors, unfinished cells or no cells, if the existing file
    is not a baseline of the same suite, and if a model has changed since the run; RunError; StoreError; OSError. Then nothing is
    written, except possibly the artifact.
    """
    run = load_run(folder)
    baseline = replace(snapshot(run, reason), test=test or "fixed")
    if not baseline.cells:
        raise AcceptError(
            f"{folder} has no cell that a gate judges (naive attacks, certificates, corruptions and replays are not gated): run "
            "an attack too"
        )
    if open_cells := [one for one in baseline.cells if one.status != "ok"]:
        first = "; ".join(f"{visible(one.title)}: {one.status}" for one in open_cells[:3])
        more = f" and {len(open_cells) - 3} more" if len(open_cells) > 3 else ""
        raise AcceptError(
            f"{folder} cannot become a baseline: {len(open_cells)} of its {len(baseline.cells)} cells are not finished "
            f"({first}{more}). Run the same command again until every cell is finished, with --no-gate if the gate stops early"
        )
    path = out or BASELINES / f"{re.sub('[^A-Za-z0-9._+-]', '_', baseline.suite)}.json"
    found = None
    if path.exists():
        try:
            old = read_baseline(path)
        except BaselineError as error:
            raise AcceptError(
                f"{path} exists and is not a readable baseline ({error}): delete it, or name another --out"
            ) from error
        if old.suite != baseline.suite:
            raise AcceptError(
                f"{path} is the baseline of suite {old.suite!r}, but this run has suite {baseline.suite!r}: name another --out"
            )
        baseline = replace(baseline, test=test or old.test)
        found = tuple(diff(old, baseline))
    if artifact:
        baseline = replace(baseline, artifact=pack_run(path, run, Workbench(torch.device("cpu"))))
    write_baseline(path, baseline)
    return Accepted(path, baseline, found)


def pack_run(path: Path, run: Run, workbench: Workbench) -> ArtifactRef:
    """Write the artifact of a run beside `path`, the file of its baseline: blocks, and the weights of its models.

    Raises AcceptError if a model cannot be built or has changed since the run; StoreError; OSError.
    """
    load_recorded(run.plugins)
    blocks: dict[Key, list[str]] = {}
    models: dict[str, nn.Module] = {}
    for cell in gated(run.plan.cells):
        blocks[cell_key(cell.info)] = [key for key, _ in run.keys(cell) or []]
        try:
            model = workbench.model(cell.model)
        except Exception as error:  # a user's model may raise anything
            reason = f"{type(error).__name__}: {error}"
            raise AcceptError(
                f"the weights of {cell.info.model} cannot be loaded ({reason}): leave out --artifact"
            ) from error
        attacked = {str(block.provenance.get("weights", "")) for block in run.result(cell).blocks}
        if attacked != {model.digest}:
            raise AcceptError(f"{cell.info.model} is no longer the model that was attacked: run the same command again")
        models[model.digest] = model.module
    return pack(path, run.store, blocks, models)


def read_either(path: Path) -> Baseline:
    """The baseline of a file or of a results folder. Raises BaselineError, RunError, StoreError."""
    return snapshot(load_run(path)) if path.is_dir() else read_baseline(path)
