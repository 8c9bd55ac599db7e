"""A plan held against its baseline before anything is attacked: what differs, with both values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from gauntlet.leaderboard.gate.baseline import Baseline, Key
from gauntlet.leaderboard.gate.conditions import CHECKS, RunConditions, attack_name, read_conditions
from gauntlet.leaderboard.gate.judge import partners
from gauntlet.leaderboard.results.record import CellInfo

_MOST_CELLS: Final = 3
"""Number of planned cells that are named in place of one that is missing."""


def plan_deviations(
    baseline: Baseline, planned: Sequence[CellInfo], *, checks: str, free: Collection[str] = ()
) -> Iterator[str]:
    """A sentence, with both values, for each way in which a plan differs from the baseline's cells and conditions.

    More attacks and more checks are free. So is what `free` names: `cells` (attacks, threat models, data), `seed`, `checks`.
    A baseline without conditions binds nothing.
    """
    conditions = read_conditions(baseline.policy)
    if conditions is None:
        return
    if "cells" not in free:
        yield from dict.fromkeys(_cell_deviations(baseline, conditions, planned, seeds="seed" not in free))
    if "checks" not in free and CHECKS.index(checks) < CHECKS.index(conditions.checks):
        yield f"checks is {conditions.checks!r} in the baseline and {checks!r} here"


def version_deviations(baseline: Baseline, versions: Mapping[str, str]) -> Iterator[str]:
    """A sentence, with both values, for each version that is not the baseline's; a rule that either side lacks is left out."""
    conditions = read_conditions(baseline.policy)
    for name, before in (conditions.versions if conditions else {}).items():
        if name in versions and versions[name] != before:
            yield f"the version of {name} is {before} in the baseline and {versions[name]} here"


def content_deviations(baseline: Baseline, cell: CellInfo, *, data: str, code: str) -> Iterator[str]:
    """A sentence, with both values, for other images, labels or ids of a prepared cell, and for other code of its attack.

    `data`: the digest of the cell's data, as in a baseline; `code`: that of the attack's code; empty if they are not known.
    """
    conditions = read_conditions(baseline.policy)
    if conditions is None:
        return
    accepted = {one.data_digest for one in baseline.cells if one.data == cell.data} - {""}
    if data and accepted and data not in accepted:
        yield f"the images, labels or ids of {cell.data} are {min(accepted)[:12]}… in the baseline and {data[:12]}… here"
    before = conditions.code.get(attack_name(cell))
    if before is not None and code != before:
        yield f"the code of {attack_name(cell)} is {before[:12]}… in the baseline and {code[:12] or 'Gauntlet’s own'}… here"


def _cell_deviations(
    baseline: Baseline, conditions: RunConditions, planned: Sequence[CellInfo], *, seeds: bool
) -> Iterator[str]:
    found = {_key(info): info for info in planned if info.gated}
    partner = partners([cell.key for cell in baseline.cells], list(found))
    others = [info for key, info in found.items() if key not in partner.values()]
    for cell in baseline.cells:
        if cell.key not in partner:
            shown = [f"{info.title} {info.threat}" for info in others[:_MOST_CELLS]]
            instead = f"; here are {', '.join(shown)}" if shown else ""
            yield f"{cell.title} is in the baseline and not planned here{instead}"
            continue
        info = found[partner[cell.key]]
        names = {"threat": "the threat model", "suite": "the suite", "data": "the data set"}
        changed = [name for name in names if getattr(cell, name) != getattr(info, name)]
        for name in changed:
            yield f"{names[name]} of {cell.attack} is {getattr(cell, name)} in the baseline and {getattr(info, name)} here"
        if seeds and cell.seed != info.seed:
            yield f"the seed is {cell.seed} in the baseline and {info.seed} here"
        before = conditions.attacks.get(attack_name(cell))
        if not changed and before is not None and before != info.attack_spec:
            yield f"the attack {cell.attack} is {before!r} in the baseline and {info.attack_spec!r} here"


def _key(info: CellInfo) -> Key:
    return info.model, info.defense, info.attack, info.threat, info.suite, info.data, info.seed
