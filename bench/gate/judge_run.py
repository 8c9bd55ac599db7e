"""Judging a stored run by its gate, and publishing the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gauntlet.bench.environment.exit_codes import GATE_EXITS
from gauntlet.bench.gate.choose_gate import Gate
from gauntlet.bench.gate.early_run import traces
from gauntlet.bench.gate.lost_samples import detailed
from gauntlet.bench.gate.publish import append_summary, write_files
from gauntlet.bench.gate.snapshot import snapshot_so_far
from gauntlet.bench.run.run_folder import Run, RunError, load_run
from gauntlet.bench.worker.seam import Work
from gauntlet.leaderboard.gate.baseline import BaselineError
from gauntlet.leaderboard.gate.formats import to_json
from gauntlet.leaderboard.gate.judge import judge
from gauntlet.leaderboard.gate.report import GateReport, loosened, nothing_compared
from gauntlet.leaderboard.gate.trace import Trace
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.escape import visible


@dataclass(frozen=True)
class JudgedRun:
    """The report of a gate on a run."""

    report: GateReport
    json: str
    notes: tuple[str, ...]
    """Sentences on the files that were written, or could not be."""
    written: bool = False
    """Whether gate.json was written."""


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
    except (RunError, StoreError) as error:
        return _published(nothing_compared(str(error)), gate)
    return judge_loaded(run, gate, known)


def judge_loaded(
    run: Run, gate: Gate, known: Sequence[Trace], *, work: Work | None = None, nonce: str = ""
) -> JudgedRun:
    """The same of a run in memory. `known`: the traces of its cells; `work`: draws the pictures; `nonce`: stands in gate.json."""
    try:
        judged = judge(gate.baseline, snapshot_so_far(run, known), gate.policy, known)
        report, reasons = detailed(judged, run, known, work)
        report = replace(report, notes=gate.notes)
    except (BaselineError, StoreError) as error:
        return _published(nothing_compared(str(error)), gate, nonce=nonce)
    missing = [f"no picture: {visible(reason)}" for reason in reasons]
    return _published(report, gate, run.root, missing, nonce=nonce)


def unpassed(judged: JudgedRun, gate: Gate, root: Path) -> str:
    """Why a run does not pass although its verdicts do: others rely on gate.json, which must be complete. Empty if it passes."""
    compared = sum(verdict.key is not None for verdict in judged.report.verdicts)
    if compared < len(gate.baseline.cells):
        return f"only {compared} of the baseline's {len(gate.baseline.cells)} cells have a verdict"
    return "" if judged.written else f"{root / 'gate.json'} could not be written"


def refused(gate: Gate, folder: Path | None = None) -> JudgedRun:
    """The verdict where configuration or plan are looser than the baseline, or different: nothing is compared."""
    return _published(loosened(gate.deviations, gate.renew), gate, folder)


def judge_all(folders: Sequence[Path], gate: Gate) -> list[JudgedRun]:
    """Judge the run in each folder. Without folders, the one report says that nothing was run."""
    if not folders:
        return [_published(nothing_compared("No cell was run: run the cells of the baseline."), gate)]
    return [judge_run(folder, gate) for folder in folders]


def _published(
    report: GateReport, gate: Gate, root: Path | None = None, notes: Sequence[str] = (), nonce: str = ""
) -> JudgedRun:
    text = to_json(report, gate.baseline, gate.policy, exit_code=GATE_EXITS[report.state], nonce=nonce)
    files = {"gate.md": report.markdown(), "gate.json": text + "\n"} if root else {}
    told, written = write_files(root or Path(), files)
    return JudgedRun(report, text, (*notes, *told, *append_summary(report)), "gate.json" in written)
