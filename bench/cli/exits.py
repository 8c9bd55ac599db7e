"""The exit codes of every command."""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

EPILOG = (
    "Exit codes: 0 all well; 1 a cell in error, an expectation missed, a failed verification or gate; 2 wrong usage; "
    "130 interrupted (run the same command again to resume)."
)
