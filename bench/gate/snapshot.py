"""A stored run as a baseline: its gated cells, with the flags that block the rows they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gauntlet.bench.environment.clock import now
from gauntlet.bench.gate.early_run import attacked_part, cell_key
from gauntlet.bench.run.run_folder import Run
from gauntlet.leaderboard.gate.baseline import Baseline, baseline_of
from gauntlet.leaderboard.gate.trace import Trace
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CellResult
from gauntlet.leaderboard.rows.build_rows import build_rows


def snapshot(run: Run, reason: str = "", results: Sequence[CellResult] | None = None) -> Baseline:
    """Every gated cell of a run, finished or not. Raises StoreError, BaselineError. `results`: the run's, if read already."""
    return _baseline(run.results() if results is None else results, reason)


def snapshot_so_far(run: Run, known: Sequence[Trace]) -> Baseline:
    """The same of a run in which a gate stopped early: with the flags of what was attacked. `known`: the traces of its cells.

    Raises StoreError, BaselineError.
    """
    trace_of = {trace.key: trace for trace in known}
    results = []
    for cell in run.plan.cells:
        if trace := trace_of.get(cell_key(cell.info)):
            part = attacked_part(run, trace, cell)
            results.append(replace(part, expected=cells.covered(part)))
        else:
            results.append(run.result(cell))
    return _baseline(results)


def _baseline(every: Sequence[CellResult], reason: str = "") -> Baseline:
    results = [result for result in every if result.cell.gated]
    # A run of several suites is one baseline: it is accepted and judged as a whole.
    suite = "+".join(sorted({result.cell.suite for result in results}))
    commit = cells.newest_commit(results)
    return baseline_of(results, suite=suite, commit=commit, reason=reason, created=now(), rows=build_rows(every))
