"""Making the summaries of many cells in several processes.

`python -m gauntlet.bench.results_folder.fill_summaries RUN PART PARTS` makes one part of them. Each process writes its part below
`summaries/`, from where the first one reads them. What a process fails to make is made, or fails with its message, where it is
asked for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gauntlet.bench.run.run_folder import Run, load_run

WORTH: Final = 4000
"""Blocks without a summary from which on further processes are started."""
_MOST: Final = 4


def fill_summaries(runs: Sequence[Run]) -> None:
    """Make the summaries that are missing of the cells of these runs, where they are many and there are several processors."""
    made = sum(1 for path in (runs[0].root / "summaries").glob("*") if path.is_file())
    if made >= sum(len(run.plan.cells) for run in runs):
        return
    for run in runs:
        blocks = sum(len(run.keys(cell) or []) for cell in run.plan.cells if not run.has_summary(cell))
        parts = min(_processors(), _MOST)
        if blocks < WORTH or parts < 2:
            continue
        module = [sys.executable, "-m", "gauntlet.bench.results_folder.fill_summaries", str(run.folder)]
        others = [
            subprocess.Popen(  # noqa: S603
                [*module, str(part), str(parts)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            for part in range(1, parts)
        ]
        try:
            _fill(run, 0, parts)
            for process in others:
                process.wait()
        finally:
            for process in others:
                process.kill()
                process.wait()


def _fill(run: Run, part: int, parts: int) -> None:
    for cell in run.plan.cells[part::parts]:
        run.summary(cell)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    _fill(load_run(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3]))
