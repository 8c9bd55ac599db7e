"""`gauntlet compare`: what it prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from gauntlet.bench.compare.compare import compare_runs
from gauntlet.leaderboard.compare.comparison_report import comparison_markdown, comparison_text
from gauntlet.leaderboard.compare.comparison_tables import comparison_json, pairs_frame
from gauntlet.leaderboard.report.files import csv_text


def compared_text(folders: Sequence[Path], model: str, defense: str, form: str) -> str:
    """The comparison as `text`, `markdown`, `csv` or `json`. Raises as `compare_runs`."""
    found = compare_runs(folders, model=model, defense=defense)
    if form == "csv":
        return csv_text(pairs_frame(found.comparison))
    if form == "json":
        return json.dumps(comparison_json(found.comparison, found.plain_sources), indent=1, allow_nan=False) + "\n"
    lines = [source.line for source in found.sources] if len(found.sources) > 1 else []
    if lines:
        lines.append("Replays are left out: each tries the examples that its own folder holds.")
    return (comparison_markdown if form == "markdown" else comparison_text)(found.comparison, lines)
