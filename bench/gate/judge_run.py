"""Judging a stored run by its gate, and publishing the report."""

from __future__ import annotations

import secrets
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
    """The text of gate.json, which has a number of its own: no other run has the same."""
    notes: tuple[str, ...]
    """Sentences on the files that were written, or could not be."""


def judge_run(run: Run, gate: Gate) -> JudgedRun:
    """Judge a stored run, and write gate.md, gate.json and pictures of lost samples into its results folder.

    On GitHub the report is also appended to the step's summary. A run that cannot be read is incomparable. A file that cannot be
    written is named in the notes and changes no verdict.
    """
    if gate.deviations:
        return refused(gate, run.root)
    try:
        known = traces(run, gate.baseline)
    except StoreError as error:
        return _published(nothing_compared(str(error)), gate, run.root)
    return judge_loaded(run, gate, known)


def judge_loaded(run: Run, gate: Gate, known: Sequence[Trace], *, work: Work | None = None) -> JudgedRun:
    """The same of a run in memory. `known`: the traces of its cells; `work`: draws the pictures."""
    try:
        judged = judge(gate.baseline, snapshot_so_far(run, known), gate.policy, known)
        report, reasons = detailed(judged, run, known, work)
        report = replace(report, notes=gate.notes)
    except (BaselineError, StoreError) as error:
        return _published(nothing_compared(str(error)), gate, run.root)
    return _published(report, gate, run.root, [f"no picture: {visible(reason)}" for reason in reasons])


def unpassed(judged: JudgedRun, root: Path) -> str:
    """Why a run does not pass although its verdicts do: others rely on gate.json, which is not its report. Empty if it passes."""
    file = root / "gate.json"
    try:
        found = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        return f"{file} cannot be read ({error})"
    return "" if found == f"{judged.json}\n" else f"{file} is not the report of this run: something has replaced it"


def refused(gate: Gate, root: Path) -> JudgedRun:
    """The verdict where configuration or plan are looser than the baseline, or different: nothing is compared."""
    return _published(loosened(gate.deviations, gate.renew), gate, root)


def judge_all(folders: Sequence[Path], gate: Gate, root: Path) -> list[JudgedRun]:
    """Judge the runs in these folders of the results folder `root`. Without folders, the report says that nothing was run."""
    if not folders:
        return [_published(nothing_compared("No cell was run: run the cells of the baseline."), gate, root)]
    judged = []
    for folder in folders:
        try:
            judged.append(judge_run(load_run(folder), gate))
        except RunError as error:
            judged.append(_published(nothing_compared(str(error)), gate, root))
    return judged


def _published(report: GateReport, gate: Gate, root: Path, notes: Sequence[str] = ()) -> JudgedRun:
    nonce = secrets.token_hex(16)
    text = to_json(report, gate.baseline, gate.policy, exit_code=GATE_EXITS[report.state], nonce=nonce)
    written = write_files(root, {"gate.md": report.markdown(), "gate.json": f"{text}\n"})
    return JudgedRun(report, text, (*notes, *written, *append_summary(report)))
