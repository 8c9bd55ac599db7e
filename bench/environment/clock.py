"""The wall clock, as text that sorts."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """The present time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
