"""The current time: as text that sorts by time, and as seconds that wait for the GPU."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime


def now() -> str:
    """The current time in UTC, ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def synchronised_time() -> float:
    """Seconds of a monotonic clock, read after the GPU has finished all queued work."""
    # A process that has not imported torch has queued none.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()
