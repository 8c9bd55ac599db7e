"""The gate that stops early, for a whole run: its artifact, its cells, and the files that it writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.config.schema import Config
from gauntlet.bench.gate.artifact import Artifact, unpack
from gauntlet.bench.gate.cross_replay import CrossReplay, ReplayError
from gauntlet.bench.gate.early_stopping import EarlyCell, run_early
from gauntlet.bench.run.cell_runner import SampleProgress, cell_error
from gauntlet.bench.run.engine import Engine, ReadyCell
from gauntlet.bench.run.reuse import reuse_blocks
from gauntlet.bench.run.run_folder import Run
from gauntlet.leaderboard.gate.baseline import Baseline, BaselineCell, Key
from gauntlet.leaderboard.gate.baseline_file import baseline_digest
from gauntlet.leaderboard.gate.judge import partners
from gauntlet.leaderboard.gate.policy import Policy
from gauntlet.leaderboard.gate.trace import Trace, dumps, loads
from gauntlet.leaderboard.results.atomic_files import replace_text
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.record import CellError, CellInfo, CellResult
from gauntlet.leaderboard.results.sealed_json import read_sealed, sealed


@dataclass(frozen=True)
class EarlyGate:
    """A gate that stops early, with its artifact. Made by `open_gate`."""

    baseline: Baseline
    policy: Policy
    artifact: Artifact | None
    no_artifact: str
    """Why there is no artifact; empty if there is one."""


def open_gate(file: Path, baseline: Baseline, policy: Policy, config: Config) -> EarlyGate:
    """The gate of the baseline in `file`. An artifact beside the file is unpacked into the results folder.

    Raises ArtifactError for a wrong or damaged artifact, OSError.
    """
    ref = baseline.artifact
    if ref is None:
        return EarlyGate(baseline, policy, None, "no replay: the baseline was accepted without --artifact")
    beside = file.with_name(ref.file)
    if not beside.is_file():
        return EarlyGate(baseline, policy, None, f"no replay: {beside} does not exist")
    return EarlyGate(baseline, policy, unpack(beside, ref, config.out / "gate"), "")


def gated(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that a gate judges; see `CellInfo.gated`."""
    return [cell for cell in cells if cell.info.gated]


def cell_key(info: CellInfo) -> Key:
    """The key of the cell in a baseline."""
    return info.model, info.defense, info.attack, info.threat, info.suite, info.data, info.seed


def early_cell(
    engine: Engine,
    cell: Cell,
    gate: EarlyGate,
    progress: SampleProgress | None = None,
    ready: ReadyCell | CellError | None = None,
) -> Trace | CellResult:
    """Attack one cell of the engine's plan until its verdict is certain, and write its trace into the run's folder.

    `ready`: the cell as the engine prepared it, if it has.
    Returns the failed result if the model, the attack or the data failed. Raises StoreError.
    """
    ready = engine.prepare(cell) if ready is None else ready
    if isinstance(ready, CellError):
        return CellResult(cell.info, (), ready)
    request, prepared, store = ready.request, ready.prepared, engine.run.store
    key = cell_key(prepared.cell)
    if gate.artifact is not None:
        # Same model, data, attack and settings.
        reuse_blocks(prepared, gate.artifact.store, store, engine.note)
    indices = [index for block in prepared.blocks for index in block.indices]
    old = _baseline_cell(engine, gate.baseline, key)
    early = EarlyCell(
        prepared=prepared,
        request=request,
        work=engine.work,
        store=store,
        fresh=engine.config.fresh,
        baseline=gate.baseline,
        policy=gate.policy,
        key=key,
        old=old,
        cross_replay=CrossReplay(request, engine.work, indices, old, gate.artifact, gate.no_artifact),
        reused=engine.reused,
        note=engine.note,
    )
    engine.worker.allow(engine.config.timeout)
    try:
        trace, failure = run_early(early, progress)
    except ReplayError as problem:
        error = cell_error(cell, problem.failure)
        store.write_error(cell.name, error)
        failure = CellResult(prepared.cell, (), error)
    if failure is not None:
        return failure
    record = {"baseline": baseline_digest(gate.baseline), "blocks": [block.key for block in prepared.blocks]}
    replace_text(_trace_file(engine.run, cell), sealed(record | {"trace": json.loads(dumps(trace))}, cell.name))
    return trace


def traces(run: Run, baseline: Baseline) -> list[Trace]:
    """The stored traces of the run's cells that belong to this baseline and to the run's current blocks.

    Cells whose samples are all stored are left out: they need no trace. Raises StoreError for a damaged file.
    """
    digest, known = baseline_digest(baseline), []
    for cell in gated(run.plan.cells):
        file, keys = _trace_file(run, cell), [key for key, _ in run.keys(cell) or []]
        try:
            record = read_sealed(file, cell.name)
            current = record["baseline"] == digest and record["blocks"] == keys
            trace = loads(json.dumps(record["trace"]))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{file} is damaged ({error}): delete it and run the same command again") from error
        if current and is_needed(run, cell, trace):
            known.append(trace)
    return known


def is_needed(run: Run, cell: Cell, trace: Trace) -> bool:
    """Whether the cell is judged by its trace: not if all samples are stored, although it stopped early. Raises StoreError."""
    keys = [key for key, _ in run.keys(cell) or []]
    return not (len(trace.order) < trace.n and all(run.store.has(key) for key in keys))


def attacked_part(run: Run, trace: Trace, cell: Cell) -> CellResult:
    """The result of the samples that a gate attacked before it stopped. Raises StoreError."""
    info = replace(cell.info, randomised=trace.randomised)
    return CellResult(info, tuple(run.store.read(key) for key in trace.records), None, trace.n)


def _baseline_cell(engine: Engine, baseline: Baseline, key: Key) -> BaselineCell | None:
    keys = [cell_key(cell.info) for cell in gated(engine.run.plan.cells)]
    old_key = {new: old for old, new in partners([cell.key for cell in baseline.cells], keys).items()}.get(key)
    return next((cell for cell in baseline.cells if cell.key == old_key), None)


def _trace_file(run: Run, cell: Cell) -> Path:
    return run.folder / "gate" / f"{cell.name}.json"
