"""The current time as text that sorts by time."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """The current time in UTC, ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
