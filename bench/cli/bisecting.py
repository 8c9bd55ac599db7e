"""`gauntlet bisect`: what it prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from gauntlet.bench.compare.bisect import bisect_runs
from gauntlet.bench.run.pictures import Patterns
from gauntlet.leaderboard.compare.bisection_report import bisection_json, bisection_text, sample_text


def bisected_text(folders: Sequence[Path], patterns: Patterns, sample: str | None, form: str, repo: Path) -> str:
    """The history of the cells, or of one sample, as `text` or `json`. Raises as `bisect_runs`, ValueError for the sample."""
    found = bisect_runs(folders, patterns, repo)
    if form == "json":
        return json.dumps(bisection_json(found, sample), indent=1, allow_nan=False) + "\n"
    return bisection_text(found) if sample is None else sample_text(found, sample)
