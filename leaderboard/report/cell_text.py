"""The result of a cell, and the settings of its attack, in a few words."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from gauntlet.leaderboard.report.formatting import percent
from gauntlet.leaderboard.results.summary import AnyResult, CellSummary, summaries
from gauntlet.leaderboard.rows.corruptions import accuracy
from gauntlet.leaderboard.stats.proportions import Proportion

_LONGEST: Final = 200
"""Settings of more characters than this are those of a cascade, and are named by their digest."""


def describe_cell(result: AnyResult) -> str:
    """`robust 15.0 % of 20` for attacks; accuracy, proof or `nothing to replay` for the cells that are none."""
    (own,) = summaries([result])
    n = len(own)
    if own.cell.corrupts:
        return f"accuracy {100 * accuracy(own).estimate:.1f} % of {n}, mean over its severities"
    if own.cell.proves:
        return _proven(own, n)
    if own.nothing_replayed:
        return "nothing to replay"
    return f"robust {percent(own.robust_accuracy)} % of {n}"


def _proven(result: CellSummary, n: int) -> str:
    proven = result.proven
    if proven is None:
        return f"proven 0 % of {n}, no certificate is known for its layers"
    broken = int(result.broken.sum())
    examples = f", {broken} broken by its search" if broken else ""
    return f"proven {percent(Proportion(proven, n)) if proven else 0} % of {n}{examples}"


def attack_settings(spec: str) -> str:
    """The settings of an attack for a table; those of a cascade by name and digest, as `gauntlet#3f2a91c0`."""
    if len(spec) <= _LONGEST:
        return spec
    return f"{spec.partition(':')[0]}#{hashlib.sha256(spec.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"


def settings_lines(spec: str) -> list[str]:
    """The settings of an attack in full; each stage of a cascade on a line of its own."""
    first, *stages = re.split(r"(?=\bStage\()", spec)
    return [part.strip().rstrip(",") for part in (first, *stages)]
