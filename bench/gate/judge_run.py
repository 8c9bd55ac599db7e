"""Judging a stored run by its gate, and publishing the report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gauntlet.bench.environment.exit_codes import GATE_EXITS
from gauntlet.bench.environment.gate_nonce import NONCE
from gauntlet.bench.gate.choose_gate import Gate
from gauntlet.bench.gate.early_run import traces
from gauntlet.bench.gate.lost_samples import detailed
from gauntlet.bench.gate.publish import append_summary, write_files
from gauntlet.bench.gate.snapshot import snapshot_so_far
from gauntlet.bench.run.run_folder import RunError, load_run
from gauntlet.leaderboard.gate.baseline import BaselineError
from gauntlet.leaderboard.gate.formats import to_json
from gauntlet.leaderboard.gate.judge import judge
from gauntlet.leaderboard.gate.report import GateReport, loosened, nothing_compared
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.escape import visible


@dataclass(frozen=True)
class JudgedRun:
    """The report of a gate on a run."""

    report: GateReport
    json: str
    notes: tuple[str, ...]
    """Sentences on the files that were written, or could not be."""


def judge_run(folder: Path, gate: Gate) -> JudgedRun:
    """Judge the run in `folder`, and write gate.md, gate.json and pictures of lost samples into its results folder.

    On GitHub the report is also appended to the step's summary. A run that cannot be read is incomparable. A file that cannot be
    written is named in the notes and changes no verdict.
    """
    if gate.deviations:
        return refused(gate, folder)
    try:
        run = load_run(folder)
        known = traces(run, gate.baseline)
        report, reasons = detailed(judge(gate.baseline, snapshot_so_far(run, known), gate.policy, known), run, known)
        report = replace(report, notes=gate.notes)
    except (BaselineError, RunError, StoreError) as error:
        return _published(nothing_compared(str(error)), gate)
    return _published(report, gate, run.root, [f"no picture: {visible(reason)}" for reason in reasons])


def refused(gate: Gate, folder: Path | None = None) -> JudgedRun:
    """The verdict where configuration or plan are looser than the baseline, or different: nothing is compared."""
    return _published(loosened(gate.deviations, gate.renew), gate, folder)


def judge_all(folders: Sequence[Path], gate: Gate) -> list[JudgedRun]:
    """Judge the run in each folder. Without folders, the one report says that nothing was run."""
    if not folders:
        return [_published(nothing_compared("No cell was run: run the cells of the baseline."), gate)]
    return [judge_run(folder, gate) for folder in folders]


def _published(report: GateReport, gate: Gate, root: Path | None = None, notes: Sequence[str] = ()) -> JudgedRun:
    text = to_json(
        report, gate.baseline, gate.policy, exit_code=GATE_EXITS[report.state], nonce=os.environ.get(NONCE, "")
    )
    written = write_files(root, {"gate.md": report.markdown(), "gate.json": text + "\n"}) if root else []
    return JudgedRun(report, text, (*notes, *written, *append_summary(report)))
