"""A stored run as a baseline: what it holds, and accepting one, with its examples and weights where they are wanted."""

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
"""Where baselines lie below the working folder, a file for each suite."""


class AcceptError(ValueError):
    """A run that cannot become a baseline; the message says why and what to do."""


@dataclass(frozen=True)
class Accepted:
    """A baseline that was written."""

    path: Path
    baseline: Baseline
    changes: tuple[str, ...] | None
    """Sentences on what changed against the file that it replaced; None where there was none."""


def snapshot(run: Run, reason: str = "") -> Baseline:
    """A stored run as a baseline, whatever state its cells are in, without replays. Raises StoreError, BaselineError."""
    results = [run.result(cell) for cell in gated(run.plan.cells)]
    # More than one suite in a run is one baseline: a run is accepted and judged whole.
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

    `test` is how gates will judge; None keeps that of the file that is replaced, `fixed` where there is none. `artifact` writes
    the run's examples and its models' weights beside it. Raises AcceptError for a run with errors, unfinished cells or no cells,
    where the file that would be replaced is no baseline or another suite's, and where a model is no longer the run's; RunError;
    StoreError; OSError. Nothing is then written, but perhaps the artifact.
    """
    run = load_run(folder)
    baseline = replace(snapshot(run, reason), test=test or "fixed")
    if not baseline.cells:
        raise AcceptError(
            f"{folder} has no attack's cell: naive attacks, certificates, corruptions and replays are not gated: run an attack"
            " too"
        )
    if open_cells := [one for one in baseline.cells if one.status != "ok"]:
        told = "; ".join(f"{visible(one.title)}: {one.status}" for one in open_cells[:3])
        more = f" and {len(open_cells) - 3} more" if len(open_cells) > 3 else ""
        raise AcceptError(
            f"{folder} is no baseline, {len(open_cells)} of its {len(baseline.cells)} cells are not finished ({told}{more}): "
            "run the same command again until every cell is there, with --no-gate where the gate stops early"
        )
    path = out or BASELINES / f"{re.sub('[^A-Za-z0-9._+-]', '_', baseline.suite)}.json"
    found = None
    if path.exists():
        try:
            old = read_baseline(path)
        except BaselineError as error:
            raise AcceptError(
                f"{path} is there already and cannot be compared with: delete it, or name another --out ({error})"
            ) from error
        if old.suite != baseline.suite:
            raise AcceptError(
                f"{path} is the baseline of suite {old.suite!r}, and this run is of {baseline.suite!r}: name another --out"
            )
        baseline = replace(baseline, test=test or old.test)
        found = tuple(diff(old, baseline))
    if artifact:
        baseline = replace(baseline, artifact=pack_run(path, run, Workbench(torch.device("cpu"))))
    write_baseline(path, baseline)
    return Accepted(path, baseline, found)


def pack_run(path: Path, run: Run, workbench: Workbench) -> ArtifactRef:
    """Write the artifact of a run beside `path`, where its baseline is to lie: blocks, and the weights of its models.

    Raises AcceptError where a model cannot be built, or is no longer the one that was attacked; StoreError; OSError.
    """
    load_recorded(run.plugins)
    blocks: dict[Key, list[str]] = {}
    models: dict[str, nn.Module] = {}
    for cell in gated(run.plan.cells):
        blocks[cell_key(cell.info)] = [key for key, _ in run.keys(cell) or []]
        try:
            model = workbench.model(cell.model)
        except Exception as error:  # a user's model may raise anything
            told = f"{type(error).__name__}: {error}"
            raise AcceptError(
                f"the weights of {cell.info.model} are not to be had ({told}): leave out --artifact"
            ) from error
        attacked = {str(block.provenance.get("weights", "")) for block in run.result(cell).blocks}
        if attacked != {model.digest}:
            raise AcceptError(f"{cell.info.model} is no longer the model that was attacked: run the same command again")
        models[model.digest] = model.module
    return pack(path, run.store, blocks, models)


def read_either(path: Path) -> Baseline:
    """The baseline in a file, or a results folder's run as one. Raises BaselineError, RunError, StoreError."""
    return snapshot(load_run(path)) if path.is_dir() else read_baseline(path)
