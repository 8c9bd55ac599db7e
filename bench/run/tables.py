"""The tables of a run, written into its results folder."""

from __future__ import annotations

from collections.abc import Sequence

from gauntlet.bench.run.run_folder import Run
from gauntlet.leaderboard.report.leaderboard_files import WrittenFiles, write_leaderboard_files
from gauntlet.leaderboard.results.summary import AnyResult


def write_leaderboard(run: Run, results: Sequence[AnyResult]) -> WrittenFiles:
    """Write the files of the leaderboard of a run with these results into the results folder. Raises WriteError, StoreError."""
    return write_leaderboard_files(run.root, results, run.context, run.published())
