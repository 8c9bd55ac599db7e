"""A gate that attacks only as many samples as its verdict needs: one cell, from the baseline's bits to a trace.

The baseline decides the test. `sequential`: samples in a fixed random order, 50 at a time, until the evidence suffices.
`fixed`: until the verdict for all samples can no longer change. The outcome of a sample never depends on the other samples
of its batch, so an interrupted run resumes from the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gauntlet.bench.executors.executable import Prepared, RunSettings
from gauntlet.bench.gate.cross_replay import CrossReplay
from gauntlet.bench.run.cell_runner import Tell, prepare_cell, run_cell
from gauntlet.bench.worker.request import Request
from gauntlet.bench.worker.work import Work
from gauntlet.leaderboard.gate.baseline import Baseline, BaselineCell, Key, data_digest, devices, spec_digest
from gauntlet.leaderboard.gate.judge import obstacle
from gauntlet.leaderboard.gate.policy import Policy
from gauntlet.leaderboard.gate.trace import Trace, sample_order
from gauntlet.leaderboard.gate.verdicts import ComparedCell, is_certain
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.measurements import Measurements
from gauntlet.leaderboard.results.record import CellError, CellResult, Record
from gauntlet.leaderboard.results.store import Store

CHUNK = 50
"""Samples between two looks. The verdict does not depend on it, because a sequential test looks at every sample."""


@dataclass(frozen=True)
class Job:
    """A cell to attack for a gate."""

    prepared: Prepared
    request: Request
    work: Work
    store: Store
    settings: RunSettings
    baseline: Baseline
    policy: Policy
    key: Key
    old: BaselineCell | None
    """The cell in the baseline; None if it has none."""
    cross_replay: CrossReplay

    @property
    def places(self) -> list[int]:
        """Indices into the data, in the order of the baseline's bits."""
        return [index for block in self.prepared.blocks for index in block.indices]


def run_early(job: Job, progress: Tell | None = None) -> tuple[Trace, CellResult | None]:
    """Attack a cell until its verdict is certain; returns the trace, and the failed result if the attack failed.

    Nothing is attacked if the cell cannot be compared with the baseline. Raises StoreError.
    """
    nothing = _trace(job, _State.start(job.old, len(job.places)))
    if job.old is None or obstacle(job.old, nothing.cell):
        return nothing, None
    trace, tell = nothing, progress or (lambda count: None)
    for state, failure in _steps(job, job.old):
        reported = len(trace.order)
        trace = _trace(job, state)
        tell(len(trace.order) - reported)
        if failure is not None:
            return trace, failure
        if is_certain(
            ComparedCell.of(job.old, trace.cell, trace), job.policy, job.baseline.test, len(job.baseline.cells)
        ):
            break
    return trace, None


@dataclass
class _State:
    """The state of each sample, in the order of the baseline's bits."""

    before: npt.NDArray[np.bool_]
    now: npt.NDArray[np.bool_]
    done: npt.NDArray[np.bool_]
    records: list[Record]
    excused: int = 0

    @classmethod
    def start(cls, old: BaselineCell | None, n: int) -> _State:
        """The state before any attack."""
        none = np.zeros(n, dtype=np.bool_)
        before = none.copy() if old is None or len(old.robust) != n else old.robust.copy()
        return cls(before, none.copy(), none.copy(), [])


def _steps(job: Job, old: BaselineCell) -> Iterator[tuple[_State, CellResult | None]]:
    """The state after each chunk of samples."""
    state = _State.start(old, old.n)
    for chunk in _chunks(job, old):
        replayed = [at for at in chunk if not old.robust[at]] if not _whole(job) else []
        state.done[job.cross_replay.breaks_now(replayed)] = True
        rest = [at for at in chunk if not state.done[at]]
        if failure := _attack(job, state, rest):
            yield state, failure
            return
        # A sample that the attack did not break may fall to the baseline's example; a new example may have been missed before.
        state.now[job.cross_replay.breaks_now([at for at in rest if state.now[at] and not old.robust[at]])] = False
        found = {at: image for at, image in _examples(job, state, rest).items() if old.robust[at]}
        missed = job.cross_replay.broke_before(found)
        state.before[missed] = False
        state.excused += len(missed)
        state.done[rest] = True
        yield state, None


def _whole(job: Job) -> bool:
    """Whether to take all samples at once: if they are stored, or if the outcome of the attack depends on its batch."""
    stored = not job.settings.fresh and all(job.store.has(block.key) for block in job.prepared.blocks)
    return stored or not job.prepared.attack.stages


def _chunks(job: Job, old: BaselineCell) -> Iterator[Sequence[int]]:
    """The positions of each chunk."""
    if _whole(job):
        yield range(old.n)
        return
    order = sample_order(old).tolist()
    if job.baseline.test == "fixed":
        # Samples that are broken in the baseline come first: they can only be gained, and are cheap.
        order.sort(key=lambda at: bool(old.robust[at]))
    yield from (order[start : start + CHUNK] for start in range(0, old.n, CHUNK))


def _attack(job: Job, state: _State, rest: Sequence[int]) -> CellResult | None:
    """Attack these positions, or read their stored results; returns the failed result, if any."""
    prepared, places = job.prepared, job.places
    if not rest:
        return None
    every = len(rest) == len(places)
    chosen = None if every else (tuple(places[at] for at in rest),)
    request, ready = prepare_cell(replace(job.request, blocks=chosen), job.work, Measurements(job.store.root))
    if isinstance(ready, CellError):
        return CellResult(prepared.cell.info, (), ready)
    result = run_cell(request, ready, job.work, job.store, fresh=job.settings.fresh)
    if result.error is not None:
        return result
    state.records += result.blocks
    state.now[list(rest)] = np.concatenate([record.samples.robust for record in result.blocks])
    return None


def _examples(job: Job, state: _State, rest: Sequence[int]) -> dict[int, npt.NDArray[np.floating]]:
    """The examples of these positions that were robust before and are broken now."""
    at_id = {job.prepared.data.ids[job.places[at]]: at for at in rest if state.before[at] and not state.now[at]}
    found = {}
    for record in state.records:
        if not at_id.keys() & set(record.samples.id.tolist()):
            continue
        samples = job.store.read(record.key, adversarial=True).samples
        for name, image, distance in zip(samples.id.tolist(), samples.adversarial, samples.distance, strict=True):
            if name in at_id and image is not None and distance <= job.cross_replay.most:
                found[at_id[name]] = image
    return found


def _trace(job: Job, state: _State) -> Trace:
    info, blocks, places = job.prepared.cell.info, job.prepared.blocks, job.places
    order = np.zeros(0, np.int64) if job.old is None or not state.done.any() else sample_order(job.old)
    order = order[state.done[order]]
    costs = cells.costs(CellResult(info, tuple(state.records)))
    passes = [record.samples.forwards.sum() + record.samples.backwards.sum() for record in state.records]
    return Trace(
        key=job.key,
        n=len(state.done),
        order=order,
        before=state.before[order],
        now=state.now[order],
        spec=spec_digest(info, info.precision),
        weights=job.prepared.weights,
        data_digest=data_digest([block.data for block in blocks], [job.prepared.data.ids[at] for at in places]),
        forwards=float(sum(record.samples.forwards.sum() for record in state.records)) + job.cross_replay.forwards,
        backwards=float(sum(record.samples.backwards.sum() for record in state.records)),
        computed=float(sum(n for n, record in zip(passes, state.records, strict=True) if not record.cached))
        + job.cross_replay.forwards,
        peak_memory_mib=costs.peak_memory_mib,
        seconds=costs.seconds,
        device=devices(record.provenance for record in state.records),
        randomised=info.randomised,
        replay=job.cross_replay.reason,
        lost=tuple(job.prepared.data.ids[places[at]] for at in order if state.before[at] and not state.now[at]),
        records=tuple(record.key for record in state.records),
        excused=state.excused,
    )
