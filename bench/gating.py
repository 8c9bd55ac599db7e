"""The gate on a stored run: what a run is as a baseline, accepting one, and judging a run against one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gauntlet.bench.clock import now
from gauntlet.bench.runfile import Run, RunError, load_run
from gauntlet.leaderboard.baseline import (
    Baseline,
    BaselineError,
    baseline_of,
    diff,
    read_baseline,
    write_baseline,
)
from gauntlet.leaderboard.escape import visible
from gauntlet.leaderboard.gate import GateReport, Policy, judge
from gauntlet.leaderboard.record import CellResult
from gauntlet.leaderboard.store import StoreError, write_text

BASELINES = Path("bench", "baselines")
"""Where baselines lie below the working folder, a file for each suite."""


class AcceptError(ValueError):
    """A run that cannot become a baseline; the message says why and what to do."""


@dataclass(frozen=True)
class Accepted:
    """A baseline that was written."""

    path: Path
    baseline: Baseline
    changes: tuple[str, ...] | None
    """Sentences on what changed against the file that it replaced; None where there was none."""


def snapshot(run: Run, reason: str = "") -> Baseline:
    """A stored run as a baseline, whatever state its cells are in, without replays. Raises StoreError, BaselineError.

    A replay tries what the results folder holds, the examples against earlier models included: the later of two runs
    would face more than the first, and look worse than it is.
    """
    results = [run.result(cell) for cell in run.plan.cells if cell.attack.name != "replay"]
    # More than one suite in a run is one baseline: a run is accepted and judged whole.
    suite = "+".join(sorted({one.cell.suite for one in results}))
    return baseline_of(results, suite=suite, commit=_commit(results), reason=reason, created=now())


def accept(folder: Path, *, reason: str = "", out: Path | None = None) -> Accepted:
    """Make the run in `folder` the baseline of its suite, in `out` or in `BASELINES`.

    Raises AcceptError for a run with errors, unfinished cells or no cells, and where the file that would be replaced is no
    baseline or another suite's; RunError; StoreError; OSError. Nothing is then written.
    """
    run = load_run(folder)
    baseline = snapshot(run, reason)
    if not baseline.cells:
        raise AcceptError(f"{folder} has no attack's cell: certificates and replays are not gated, run an attack too")
    if open_cells := [one for one in baseline.cells if one.status != "ok"]:
        told = "; ".join(f"{visible(one.title)}: {one.status}" for one in open_cells[:3])
        more = f" and {len(open_cells) - 3} more" if len(open_cells) > 3 else ""
        raise AcceptError(
            f"{folder} is no baseline, {len(open_cells)} of its {len(baseline.cells)} cells are not finished ({told}{more}): "
            "run the same command again until every cell is there"
        )
    path = out or BASELINES / f"{re.sub('[^A-Za-z0-9._+-]', '_', baseline.suite)}.json"
    found = None
    if path.exists():
        try:
            old = read_baseline(path)
        except BaselineError as error:
            raise AcceptError(
                f"{path} is there already and cannot be compared with: delete it, or name another --out ({error})"
            ) from error
        if old.suite != baseline.suite:
            raise AcceptError(
                f"{path} is the baseline of suite {old.suite!r}, and this run is of {baseline.suite!r}: name another --out"
            )
        found = tuple(diff(old, baseline))
    write_baseline(path, baseline)
    return Accepted(path, baseline, found)


def read_either(path: Path) -> Baseline:
    """The baseline in a file, or a results folder's run as one. Raises BaselineError, RunError, StoreError."""
    return snapshot(load_run(path)) if path.is_dir() else read_baseline(path)


def gate(folder: Path, baseline: Baseline, policy: Policy) -> GateReport:
    """Judge the run in `folder` against a baseline, and write the report to gate.md in its results folder.

    Raises BaselineError where two cells of the run have one name, RunError and StoreError.
    """
    run = load_run(folder)
    report = judge(baseline, snapshot(run), policy)
    write_text(run.root / "gate.md", report.markdown())
    return report


def gate_all(folders: Iterable[Path], baseline: Baseline, policy: Policy) -> tuple[bool, list[str]]:
    """Judge what was run in each folder: whether all passed, and the lines that say so. No folder is no pass."""
    passed, lines = [], []
    for folder in folders:
        try:
            report = gate(folder, baseline, policy)
        except (BaselineError, RunError, StoreError) as error:
            passed.append(False)
            lines.append(f"ERROR: {visible(str(error))}")
            continue
        passed.append(report.passed)
        lines += [*report.text().splitlines(), f"written: {load_run(folder).root / 'gate.md'}"]
    if not passed:
        lines.append("FAILED: no cell was run, so nothing was compared with the baseline")
    return bool(passed) and all(passed), lines


def _commit(results: Sequence[CellResult]) -> str:
    """The commit that the newest block was computed at, empty where none is known."""
    sources = [block.provenance for one in results for block in one.blocks]
    newest = max(sources, key=lambda source: str(source.get("time", "")), default={})
    head = newest.get("commit")
    return f"{head}{'-dirty' if newest.get('dirty') else ''}" if head else ""
