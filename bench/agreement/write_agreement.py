"""Writing the agreement of libraries: tables, Markdown, and the page where its extra is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gauntlet.leaderboard.compare.agreement_report import agreement_frame, agreement_markdown, samples_frame
from gauntlet.leaderboard.compare.library_agreement import AgreementResults
from gauntlet.leaderboard.page.agreement_page import agreement_page
from gauntlet.leaderboard.page.assets import missing
from gauntlet.leaderboard.report.csv_writer import csv_text
from gauntlet.leaderboard.report.markdown_writer import RunContext
from gauntlet.leaderboard.results.atomic_files import replace_files


def write_agreement(folder: Path, results: AgreementResults, context: RunContext) -> Iterator[str]:
    """Write agreement.csv, agreement-samples.csv, agreement.md and agreement.html into the folder; yields a line for each.

    Raises WriteError.
    """
    data = " · ".join(part for part in (context.data, context.device, context.started[:10]) if part)
    files = {
        folder / "agreement.csv": csv_text(agreement_frame(results)).encode(),
        folder / "agreement-samples.csv": csv_text(samples_frame(results)).encode(),
        folder / "agreement.md": agreement_markdown(results, data, context.command).encode(),
    }
    lacking = missing()
    if not lacking:
        files[folder / "agreement.html"] = agreement_page(results, context).encode()
    replace_files(files)
    for path in files:
        yield f"written: {path}"
    if lacking:
        yield f"not written: {folder / 'agreement.html'}: {lacking}"
