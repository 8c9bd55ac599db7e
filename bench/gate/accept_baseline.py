"""Accepting a stored run as a baseline, with its adversarial examples and weights if requested."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from gauntlet.bench.gate.early_run import cell_key, gated
from gauntlet.bench.gate.pack_artifact import pack
from gauntlet.bench.gate.snapshot import snapshot
from gauntlet.bench.prepare.prepare import Workbench
from gauntlet.bench.registry.plugin_files import load_recorded
from gauntlet.bench.run.run_folder import Run, load_run
from gauntlet.bench.worker.installed_versions import installed_versions
from gauntlet.leaderboard.gate.baseline import ArtifactRef, Baseline, BaselineError, Key, Test, diff
from gauntlet.leaderboard.gate.baseline_file import read_baseline, write_baseline
from gauntlet.leaderboard.gate.conditions import RunConditions, condition_fields, conditions_of
from gauntlet.leaderboard.gate.policy import Policy, policy_fields
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.results.record import CellResult

BASELINES = Path("bench", "baselines")
"""Default folder of baselines, relative to the working folder; a file for each suite."""


class AcceptError(ValueError):
    """A run cannot become a baseline; the message says why and what to do."""


@dataclass(frozen=True)
class AcceptedBaseline:
    """A baseline that was written."""

    path: Path
    baseline: Baseline
    changes: tuple[str, ...] | None
    """Differences from the file that was replaced, a sentence each; None if there was no such file."""


def accept(
    folder: Path,
    *,
    reason: str = "",
    out: Path | None = None,
    test: Test | None = None,
    artifact: bool = False,
    policy: Policy | None = None,
) -> AcceptedBaseline:
    """Make the run in `folder` the baseline of its suite, in the file `out` or in `BASELINES`.

    `test`: the test of the gate; None keeps the test of the file that is replaced, or uses `fixed`. `policy`: the rules that
    later gates must not loosen, stored with the run's conditions; None stores neither. `artifact`: also write the run's
    adversarial examples and its models' weights beside the file. Raises AcceptError for a run with errors, unfinished cells or
    no cells, or of another version of Gauntlet, for a file that is not a baseline or belongs to another suite, and for a model
    that has changed since the run; RunError; StoreError; OSError. On an error no baseline is written; an artifact may be.
    """
    run = load_run(folder)
    results = run.results()
    rules = {} if policy is None else policy_fields(policy) | condition_fields(_conditions(run, results))
    baseline = replace(snapshot(run, reason, results), test=test or "fixed", policy=rules)
    if not baseline.cells:
        raise AcceptError(
            f"{folder} has no cell that a gate judges: naive attacks, certificates, corruptions and replays are not gated. Run "
            "another attack as well"
        )
    if unfinished := [cell for cell in baseline.cells if cell.status != "ok"]:
        some = "; ".join(f"{visible(cell.title)}: {cell.status}" for cell in unfinished[:3])
        more = f" and {len(unfinished) - 3} more" if len(unfinished) > 3 else ""
        raise AcceptError(
            f"{folder} cannot become a baseline: {len(unfinished)} of its {len(baseline.cells)} cells are not finished "
            f"({some}{more}). "
            "Run the same command again until all cells are finished, with --no-gate if the gate stops early"
        )
    path = out or BASELINES / f"{re.sub('[^A-Za-z0-9._+-]', '_', baseline.suite)}.json"
    changes = None
    if path.exists():
        try:
            old = read_baseline(path)
        except BaselineError as error:
            raise AcceptError(
                f"{path} exists and cannot be read as a baseline ({error}): delete it, or name another --out"
            ) from error
        if old.suite != baseline.suite:
            raise AcceptError(
                f"{path} is the baseline of suite {old.suite!r}, but this run is of suite {baseline.suite!r}: name another --out"
            )
        baseline = replace(baseline, test=test or old.test)
        changes = tuple(diff(old, baseline))
    if artifact:
        baseline = replace(baseline, artifact=pack_run(path, run, Workbench(torch.device("cpu"))))
    write_baseline(path, baseline)
    return AcceptedBaseline(path, baseline, changes)


def _conditions(run: Run, results: Sequence[CellResult]) -> RunConditions:
    """The conditions of the run. Raises AcceptError if another version of Gauntlet made it, whose rules are not known here."""
    versions = installed_versions()
    if (made := run.context.versions.get("robust-gauntlet", versions["gauntlet"])) != versions["gauntlet"]:
        raise AcceptError(
            f"the run was made by gauntlet {made}, and this is {versions['gauntlet']}: run the same command again, which keeps "
            "stored results whose rules are the same"
        )
    return conditions_of(results, checks=run.context.checks, versions=versions)


def pack_run(path: Path, run: Run, workbench: Workbench) -> ArtifactRef:
    """Write the artifact of a run beside `path`, the file of its baseline: blocks, and the weights of its models.

    Raises AcceptError for a model that cannot be built or has changed since it was attacked; StoreError; OSError.
    """
    load_recorded(run.plugins)
    blocks: dict[Key, list[str]] = {}
    models: dict[str, nn.Module] = {}
    for cell in gated(run.plan.cells):
        blocks[cell_key(cell.info)] = [key for key, _ in run.keys(cell) or []]
        try:
            model = workbench.model(cell.model)
        except Exception as error:  # a user's model may raise anything
            raise AcceptError(
                f"the weights of {cell.info.model} cannot be loaded ({type(error).__name__}: {error}): leave out --artifact"
            ) from error
        attacked = {str(block.provenance.get("weights", "")) for block in run.result(cell).blocks}
        if attacked != {model.digest}:
            raise AcceptError(f"{cell.info.model} has changed since it was attacked: run the same command again")
        models[model.digest] = model.module
    return pack(path, run.store, blocks, models)


def read_baseline_or_run(path: Path) -> Baseline:
    """The baseline in a file, or the run of a results folder as a baseline. Raises BaselineError, RunError, StoreError."""
    return snapshot(load_run(path)) if path.is_dir() else read_baseline(path)
