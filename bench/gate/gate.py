"""The gate of a run: which it is, judging a stored run by it, and publishing what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gauntlet.bench.config.schema import Config
from gauntlet.bench.environment.exit_codes import GATE_EXITS
from gauntlet.bench.gate.accept import snapshot
from gauntlet.bench.gate.early_run import traces
from gauntlet.bench.gate.lost_samples import detailed
from gauntlet.bench.gate.publish import append_summary, write_files
from gauntlet.bench.run.run_folder import RunError, load_run
from gauntlet.leaderboard.gate.baseline import Baseline, BaselineError
from gauntlet.leaderboard.gate.baseline_file import read_baseline
from gauntlet.leaderboard.gate.formats import to_json
from gauntlet.leaderboard.gate.judge import judge
from gauntlet.leaderboard.gate.policy import Policy
from gauntlet.leaderboard.gate.report import GateReport, nothing_compared
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.escape import visible


@dataclass(frozen=True)
class Gate:
    """What a run is judged against, and how."""

    file: Path
    baseline: Baseline
    policy: Policy
    early: bool = False
    """Whether no more samples are attacked than the verdicts need."""


def chosen(
    config: Config,
    file: str | Path | None,
    *,
    allow_undecided: bool = False,
    early: bool = False,
    none: bool = False,
    prefix: str = "--",
) -> tuple[Gate | None, str]:
    """The gate of a run: the baseline in `file`, else the one that the configuration names; None where there is none.

    Beside it a sentence where the configuration's is not applied: its file is not there yet, or options narrow what is run,
    so that another question is asked. `none`: no gate is wanted. `prefix` is how options begin. Raises BaselineError where a
    baseline cannot be read, and ValueError for settings of a gate that there is none of.
    """
    policy = replace(config.gate.policy, allow_undecided=allow_undecided or config.gate.policy.allow_undecided)
    named, note = None if none else config.gate.baseline, ""
    if none and file is not None:
        raise ValueError(f"{prefix}no-gate and {prefix}gate={file} contradict each other: leave one of them out")
    if file is None and named is not None:
        if config.narrowed:
            note = f"Gate not applied: options narrow what is run. To judge it all the same, add {prefix}gate={named}"
        elif not named.exists():
            return None, (
                f"Gate not applied: {named} is not there yet. To make this run the first baseline: "
                f"gauntlet baseline accept {config.out} --reason TEXT"
            )
        else:
            file = named
    if file is not None:
        return Gate(Path(file), read_baseline(Path(file)), policy, early or config.gate.early), ""
    for name, given in (("allow-undecided", allow_undecided), ("gate-early", early)):
        if given:
            way = f"name the baseline with {prefix}gate=FILE, or leave it out"
            raise ValueError(f"{prefix}{name} is about a gate: {way}. {note}".strip())
    return None, note


@dataclass(frozen=True)
class Judged:
    """What a gate says of one run."""

    report: GateReport
    json: str
    notes: tuple[str, ...]
    """Sentences: what was written, and what could not be."""


def judge_run(folder: Path, gate: Gate) -> Judged:
    """Judge the run in `folder`, and write the report to gate.md and gate.json in its results folder, beside pictures of lost
    samples; on GitHub, to the step's summary too.

    A run that cannot be read is incomparable; what cannot be written changes no verdict. Both are told.
    """
    try:
        run = load_run(folder)
        seen = traces(run, gate.baseline)
        report, reasons = detailed(judge(gate.baseline, snapshot(run), gate.policy, seen), run, seen)
    except (BaselineError, RunError, StoreError) as error:
        return _published(nothing_compared(str(error)), gate)
    return _published(report, gate, run.root, [f"no picture: {visible(reason)}" for reason in reasons])


def judge_all(folders: Sequence[Path], gate: Gate) -> list[Judged]:
    """Judge what was run in each folder; one report that says so where nothing was run."""
    if not folders:
        return [_published(nothing_compared("No cell was run: run what the baseline ran."), gate)]
    return [judge_run(folder, gate) for folder in folders]


def _published(report: GateReport, gate: Gate, root: Path | None = None, notes: Sequence[str] = ()) -> Judged:
    text = to_json(report, gate.baseline, gate.policy, exit_code=GATE_EXITS[report.state])
    written = write_files(root, {"gate.md": report.markdown(), "gate.json": text + "\n"}) if root else []
    return Judged(report, text, (*notes, *written, *append_summary(report)))
