"""The table [gate] of a configuration: the baseline and the policy by which its runs are judged."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gauntlet.leaderboard.gate.policy import Policy


@dataclass(frozen=True)
class GateTable:
    """The baseline and the policy by which runs are judged."""

    baseline: Path | None = None
    policy: Policy = field(default_factory=Policy)
    early: bool = False
    """Whether to attack only as many samples as the verdicts need."""


def read_gate_table(table: Any) -> GateTable:
    """The gate of a table parsed from TOML. Raises ValueError that names the key, its value and the accepted values."""
    if not isinstance(table, dict):
        raise ValueError(f"gate={table!r} must be a table: write [gate], and in it baseline = FILE")
    defaults = {one.name: one.default for one in fields(Policy)}
    known = ("baseline", "early", *defaults)
    if unknown := [key for key in table if key not in known]:
        raise ValueError(f"unknown key {unknown[0]!r} in the gate table: use {', '.join(known)}")
    baseline = table.get("baseline")
    if baseline is not None and not (isinstance(baseline, str) and baseline):
        raise ValueError(f"baseline={baseline!r} in the gate table must be a file name")
    for name, value in table.items():
        if name == "early" or isinstance(defaults.get(name), bool):
            fine, wanted = isinstance(value, bool), "true or false"
        elif name == "min_robust":
            fine = _is_number(value) or (isinstance(value, dict) and all(map(_is_number, value.values())))
            wanted = 'a share in [0, 1], or a table of shares by pattern of the model, such as {"cnn.*" = 0.5}'
        else:
            fine, wanted = name == "baseline" or _is_number(value), "a number"
        if not fine:
            raise ValueError(f"{name}={value!r} in the gate table must be {wanted}")
    try:
        policy = Policy(**{name: table[name] for name in defaults if name in table})
    except ValueError as error:
        raise ValueError(f"gate table: {error}") from error
    return GateTable(Path(baseline) if baseline else None, policy, table.get("early", False))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
