"""The conditions under which a baseline was measured: attacks with all settings, checks and versions, beside its cells' keys.

They stand in the baseline's policy (`plan_policy` holds a plan against them).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # reading a configuration imports this module
    from gauntlet.leaderboard.gate.baseline import BaselineCell
    from gauntlet.leaderboard.results.record import CellInfo, CellResult

CHECKS: Final = ("none", "default", "all")
"""From the loosest to the strictest."""


@dataclass(frozen=True)
class RunConditions:
    """The conditions of a run that no key of a cell holds."""

    attacks: Mapping[str, str] = field(default_factory=dict)
    """Each gated attack with all its settings, by `attack_name`."""
    code: Mapping[str, str] = field(default_factory=dict)
    """The digest of the code of each gated attack that is not Gauntlet's, by `attack_name`."""
    checks: str = "default"
    """The gradient-masking checks that were run."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """The versions of `gauntlet`, of its `verifier`, and of each of its rules."""


NAMES: Final = tuple(one.name for one in fields(RunConditions))
"""The names of the conditions in a policy."""


def attack_name(cell: CellInfo | BaselineCell) -> str:
    """The name of a cell's attack in the conditions: settings may depend on suite and threat model."""
    return f"{cell.attack} {cell.threat} in {cell.suite}"


def conditions_of(results: Iterable[CellResult], *, checks: str, versions: Mapping[str, str]) -> RunConditions:
    """The conditions of the gated cells of a run."""
    gated = [result for result in results if result.cell.gated]
    codes = {
        attack_name(result.cell): str((block.provenance.get("versions") or {}).get("code") or "")
        for result in gated
        for block in result.blocks
    }
    return RunConditions(
        attacks={attack_name(result.cell): result.cell.attack_spec for result in gated},
        code={name: code for name, code in codes.items() if code},
        checks=checks or "default",
        versions=dict(versions),
    )


def condition_fields(conditions: RunConditions) -> dict[str, Any]:
    """The conditions as plain data, for the policy of a baseline."""
    return asdict(conditions)


def read_conditions(policy: Mapping[str, Any]) -> RunConditions | None:
    """The conditions in a policy; None if it has none, as those of earlier versions.

    Raises TypeError or ValueError for wrong ones.
    """
    stored = {name: policy[name] for name in NAMES if name in policy}
    if not stored:
        return None
    for name, value in stored.items():
        texts = value.values() if isinstance(value, Mapping) else [value]
        if isinstance(value, Mapping) is (name == "checks") or not all(isinstance(text, str) for text in texts):
            raise TypeError(f"policy has {name}={value!r}")
    if stored.get("checks", "default") not in CHECKS:
        raise ValueError(f"policy has checks={stored['checks']!r}")
    return RunConditions(**stored)
