"""The exit codes of all commands, with their meanings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # every command imports this module, but few need the gate
    from gauntlet.leaderboard.gate.report import GateState

EXIT_PASSED = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INCOMPARABLE = 3
EXIT_UNDECIDED = 4
EXIT_INTERRUPTED = 130

GATE_EXITS: Final[Mapping[GateState, int]] = {
    "passed": EXIT_PASSED,
    "failed": EXIT_FAILED,
    "incomparable": EXIT_INCOMPARABLE,
    "undecided": EXIT_UNDECIDED,
}

MEANINGS: Final[Mapping[int, str]] = {
    EXIT_PASSED: "Success.",
    EXIT_FAILED: "Failure: a cell in error, an expectation missed, a failed verification, a blocking check, robustness lost, or "
    "a file that cannot be written.",
    EXIT_USAGE: "Wrong usage: an invalid option or configuration, or a file that cannot be read.",
    EXIT_INCOMPARABLE: "The gate compared nothing, or could not compare every cell (1 takes precedence).",
    EXIT_UNDECIDED: "The gate is undecided: too few samples (1 and 3 take precedence).",
    EXIT_INTERRUPTED: "Interrupted: run the same command again to resume.",
}
"""Shown by `gauntlet --help`. A command shows the codes that it uses, with its own reasons for 1."""
