"""The exit codes of every command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # every command imports this module, and few need the gate
    from gauntlet.leaderboard.gate.report import State

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INCOMPARABLE = 3
EXIT_UNDECIDED = 4
EXIT_INTERRUPTED = 130

GATE_EXITS: Final[Mapping[State, int]] = {
    "passed": 0,
    "failed": EXIT_FAILED,
    "incomparable": EXIT_INCOMPARABLE,
    "undecided": EXIT_UNDECIDED,
}

EPILOG = (
    "Exit codes: 0 all well; 1 a cell in error, an expectation missed, a failed verification or gate; 2 wrong usage; "
    "3 a gate that compared nothing, or could not compare all; 4 a gate that is undecided; 130 interrupted (run the same "
    "command again to resume)."
)
