"""A plan, and each of its cells once it is prepared, held against the baseline's policy before anything is attacked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from gauntlet.bench.config.schema import Config
from gauntlet.bench.environment.provenance import package_version
from gauntlet.bench.gate.choose_gate import Gate
from gauntlet.bench.gate.rule_versions import rule_versions
from gauntlet.bench.planning.plan import Plan
from gauntlet.bench.run.engine import ReadyCell
from gauntlet.bench.run.run_folder import Run
from gauntlet.bench.verify.verifier import VERSION
from gauntlet.leaderboard.gate.plan_policy import content_deviations, plan_deviations, version_deviations
from gauntlet.leaderboard.results.record import CellError

_ALL = ("cells", "seed", "checks")


def installed_versions() -> dict[str, str]:
    """The versions of Gauntlet, of its verifier and of its rules."""
    rules = {name: str(version) for name, version in rule_versions().items()}
    return {"gauntlet": package_version("robust-gauntlet"), "verifier": str(VERSION), **rules}


def hold_plan(gate: Gate, config: Config, plan: Plan) -> Gate:
    """The gate with what is looser or different in a configuration's plan. What options of the command line chose is free."""
    return _held(gate, plan, config.checks, config.by_hand, installed_versions())


def hold_run(gate: Gate, run: Run) -> Gate:
    """The same of a stored run, whose rules' versions are not known."""
    context = run.context
    versions = {"gauntlet": version} if (version := context.versions.get("robust-gauntlet")) else {}
    free = _ALL if context.by_hand is None else context.by_hand
    return _held(gate, run.plan, context.checks or "default", free, versions)


def _held(gate: Gate, plan: Plan, checks: str, free: Collection[str], versions: dict[str, str]) -> Gate:
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
