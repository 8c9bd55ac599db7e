"""Writing an evaluation in memory into a results folder, as `gauntlet run` would have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gauntlet.bench.run.run_folder import Run, start_run
from gauntlet.bench.run.tables import write_leaderboard
from gauntlet.leaderboard.results.record import CellResult


def save_results(run: Run, results: Sequence[CellResult], folder: Path) -> None:
    """Write the blocks, the plan and the leaderboard. `results`: in the order of the plan, with their examples.

    Blocks that the folder has already are kept. Raises StoreError and WriteError.
    """
    saved = start_run(folder, run.plan, replace(run.context, run_path=str(folder)), run.plugins)
    for cell, result in zip(run.plan.cells, results, strict=True):
        for record in result.blocks:
            saved.store.write(record)
        saved.note_keys(cell, [(record.key, len(record.samples)) for record in result.blocks])
    write_leaderboard(saved, saved.results())
