"""Publishing a gate's report: printed lines, files in the results folder, and the step's summary on GitHub."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from gauntlet.leaderboard.gate.formats import github_annotations, github_command
from gauntlet.leaderboard.gate.junit import to_junit
from gauntlet.leaderboard.gate.report import GateReport
from gauntlet.leaderboard.results.atomic_files import replace_text
from gauntlet.leaderboard.results.errors import StoreError, WriteError
from gauntlet.leaderboard.results.escape import markdown, visible

Format = Literal["text", "github"]

SUMMARY_LIMIT = 1024 * 1024
"""Largest size in bytes of a step's summary; GitHub shows nothing of a larger one."""
_MINIMUM = 4096
"""Smallest useful size of a summary, in bytes."""
_LONGEST = 3000


def default_format() -> Format:
    """`github` inside a workflow of GitHub Actions, else `text`."""
    return "github" if os.environ.get("GITHUB_ACTIONS") == "true" else "text"


def lines(report: GateReport, format_: Format) -> Iterator[str]:
    """The lines to print: the text and, for GitHub, the annotations after it."""
    yield from report.text().splitlines()
    if format_ == "github":
        yield from github_annotations(report)


def write_junit(report: GateReport, file: Path | None) -> list[str]:
    """Write the report as JUnit XML, if a file is named. Returns a sentence for it. Raises WriteError."""
    if file is None:
        return []
    replace_text(file, to_junit(report))
    return [f"written: {file}"]


def remove_report(root: Path) -> None:
    """Remove the report of an earlier run, which must not be taken for that of this one. Raises WriteError."""
    report = root / "gate.json"
    try:
        report.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"cannot replace {report} ({error.strerror}): remove what stands in its place") from error


def write_files(root: Path, texts: Mapping[str, str]) -> list[str]:
    """Write texts by file name into the results folder, and return a sentence for each. A failed write raises no error."""
    notes = []
    for name, text in texts.items():
        try:
            replace_text(root / name, text)
            notes.append(f"written: {root / name}")
        except StoreError as error:
            notes.append(f"not written: {visible(str(error))}")
    return notes


def append_summary(report: GateReport) -> list[str]:
    """Append the report to the step's summary, whose file GitHub names in the environment, within the size limit.

    Returns a sentence on the outcome, or nothing outside GitHub. A failed write raises no error.
    """
    return _append(lambda room: report.markdown(room, _artifacts()))


def announce_failure(message: str) -> list[str]:
    """Inside GitHub, the lines that annotate a command which ended before a verdict; the step's summary gets its message, too."""
    if default_format() != "github":
        return []
    shown = f"**No verdict**: {markdown(message, _LONGEST)}\n"
    return [github_command("error", "Robustness gate", visible(message)), *_append(lambda room: shown)]


def _artifacts() -> str:
    """The address of the artifacts of this run on GitHub; empty if it is not known."""
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    server, repository, run = (os.environ.get(name, "") for name in names)
    return f"{server}/{repository}/actions/runs/{run}#artifacts" if server and repository and run else ""


def _append(text: Callable[[int], str]) -> list[str]:
    """Append to the step's summary the text for as many bytes as there is room."""
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return []
    file = Path(name)
    try:
        used = file.stat().st_size if file.exists() else 0
        room = SUMMARY_LIMIT - used - _MINIMUM
        if room < _MINIMUM:
            return [f"not written: the step's summary is full ({used:,} of {SUMMARY_LIMIT:,} bytes)"]
        with file.open("a", encoding="utf-8") as summary:
            summary.write(f"\n## Robustness gate\n\n{text(room)}")
    except OSError as error:
        return [f"not written: the step's summary ({visible(str(error))})"]
    return ["written: the step's summary"]
