"""The outputs of a gate's report: printed lines, files in the results folder, and the step's summary on GitHub."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from gauntlet.leaderboard.gate.formats import github_annotations
from gauntlet.leaderboard.gate.report import GateReport
from gauntlet.leaderboard.results.atomic_files import replace_text
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.escape import visible

Format = Literal["text", "github"]

SUMMARY_LIMIT = 1024 * 1024
"""Largest step's summary in bytes; GitHub shows nothing of a larger one."""
_LEAST = 4096
"""Smallest useful summary in bytes."""


def default_format() -> Format:
    """`github` inside a workflow of GitHub Actions."""
    return "github" if os.environ.get("GITHUB_ACTIONS") == "true" else "text"


def lines(report: GateReport, format_: Format) -> Iterator[str]:
    """The lines to print: the text, and for GitHub the annotations after it."""
    yield from report.text().splitlines()
    if format_ == "github":
        yield from github_annotations(report)


def write_files(root: Path, texts: Mapping[str, str]) -> list[str]:
    """Write the files of the report into the results folder; returns a sentence for each, also for those that failed."""
    notes = []
    for name, text in texts.items():
        try:
            replace_text(root / name, text)
            notes.append(f"written: {root / name}")
        except StoreError as error:
            notes.append(f"not written: {visible(str(error))}")
    return notes


def append_summary(report: GateReport) -> list[str]:
    """Append the report to the step's summary that GitHub names in the environment, within its limit.

    Returns a sentence that says so, or why it could not be written.
    """
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return []
    file = Path(name)
    try:
        used = file.stat().st_size if file.exists() else 0
        room = SUMMARY_LIMIT - used - _LEAST
        if room < _LEAST:
            return [f"not written: the step's summary is full ({used:,} of {SUMMARY_LIMIT:,} bytes)"]
        with file.open("a", encoding="utf-8") as summary:
            summary.write(f"\n## Robustness gate\n\n{report.markdown(room)}")
    except OSError as error:
        return [f"not written: the step's summary ({visible(str(error))})"]
    return ["written: the step's summary"]
