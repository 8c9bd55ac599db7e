"""A plan, and each of its cells once it is prepared, held against the baseline's policy before anything is attacked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from gauntlet.bench.config.schema import Config
from gauntlet.bench.gate.choose_gate import Gate
from gauntlet.bench.planning.plan import Plan
from gauntlet.bench.run.engine import ReadyCell
from gauntlet.bench.run.run_folder import Run
from gauntlet.leaderboard.gate.plan_policy import content_deviations, plan_deviations, version_deviations
from gauntlet.leaderboard.results.record import CellError

_ALL = ("cells", "seed", "checks")


def hold_plan(gate: Gate, config: Config, plan: Plan, versions: Mapping[str, str]) -> Gate:
    """The gate with what is looser or different in a configuration's plan. What options of the command line chose is free.

    `versions`: of Gauntlet, of its verifier and rules, where the plan is run.
    """
    return _held(gate, plan, config.checks, config.by_hand, versions)


def hold_run(gate: Gate, run: Run) -> Gate:
    """The same of a stored run, whose rules' versions are not known."""
    context = run.context
    versions = {"gauntlet": version} if (version := context.versions.get("robust-gauntlet")) else {}
    free = _ALL if context.by_hand is None else context.by_hand
    return _held(gate, run.plan, context.checks or "default", free, versions)


def refusal(gate: Gate) -> str:
    """What is looser or different than the gate's baseline, as one sentence; empty if nothing is."""
    if not gate.deviations:
        return ""
    return f"gate: POLICY {'; '.join(gate.deviations)}. To renew the baseline on the base branch: {gate.renew}"


def _held(gate: Gate, plan: Plan, checks: str, free: Collection[str], versions: Mapping[str, str]) -> Gate:
    planned = plan_deviations(gate.baseline, [cell.info for cell in plan.cells], checks=checks, free=free)
    found = (*gate.deviations, *planned, *version_deviations(gate.baseline, versions))
    return replace(gate, deviations=found)


def hold_prepared(gate: Gate, config: Config, ready: ReadyCell | CellError) -> Gate:
    """The gate with what is different in the data of a prepared cell, or in the code of its attack; of a failed cell, nothing."""
    if "cells" in config.by_hand or isinstance(ready, CellError):
        return gate
    prepared = ready.prepared
    found = content_deviations(gate.baseline, prepared.cell, data=prepared.data, code=prepared.code)
    return replace(gate, deviations=(*gate.deviations, *found))
