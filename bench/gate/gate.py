"""Judging a stored run by its gate, and publishing the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gauntlet.bench.environment.exit_codes import GATE_EXITS
from gauntlet.bench.gate.accept import snapshot
from gauntlet.bench.gate.choose_gate import Gate
from gauntlet.bench.gate.early_run import traces
from gauntlet.bench.gate.lost_samples import detailed
from gauntlet.bench.gate.publish import append_summary, write_files
from gauntlet.bench.run.run_folder import RunError, load_run
from gauntlet.leaderboard.gate.baseline import BaselineError
from gauntlet.leaderboard.gate.formats import to_json
from gauntlet.leaderboard.gate.judge import judge
from gauntlet.leaderboard.gate.report import GateReport, nothing_compared
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.escape import visible


@dataclass(frozen=True)
class Judged:
    """The report of a gate on one run."""

    report: GateReport
    json: str
    notes: tuple[str, ...]
    """Sentences on the files that were written, and on those that could not be."""


def judge_run(folder: Path, gate: Gate) -> Judged:
    """Judge the run in `folder`, and write gate.md, gate.json and pictures of lost samples into its results folder.

    On GitHub the report goes to the step's summary too. A run that cannot be read is incomparable. A file that cannot be written
    changes no verdict; a note says so.
    """
    try:
        run = load_run(folder)
        seen = traces(run, gate.baseline)
        report, reasons = detailed(judge(gate.baseline, snapshot(run), gate.policy, seen), run, seen)
    except (BaselineError, RunError, StoreError) as error:
        return _published(nothing_compared(str(error)), gate)
    return _published(report, gate, run.root, [f"no picture: {visible(reason)}" for reason in reasons])


def judge_all(folders: Sequence[Path], gate: Gate) -> list[Judged]:
    """Judge the run in each folder; without folders, one report that nothing was compared."""
    if not folders:
        return [_published(nothing_compared("No cell was run: run what the baseline ran."), gate)]
    return [judge_run(folder, gate) for folder in folders]


def _published(report: GateReport, gate: Gate, root: Path | None = None, notes: Sequence[str] = ()) -> Judged:
    text = to_json(report, gate.baseline, gate.policy, exit_code=GATE_EXITS[report.state])
    written = write_files(root, {"gate.md": report.markdown(), "gate.json": text + "\n"}) if root else []
    return Judged(report, text, (*notes, *written, *append_summary(report)))
