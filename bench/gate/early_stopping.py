"""Attacking one cell for a gate, and stopping as soon as the verdict is certain.

The baseline chooses the test. `sequential`: samples are attacked in a fixed random order, 50 at a time, until the evidence
suffices. `fixed`: samples are attacked until the verdict for all samples can no longer change. The outcome of a sample never
depends on the samples that are attacked with it, so an interrupted run continues from the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gauntlet.bench.gate.cross_replay import CrossReplay
from gauntlet.bench.run.cell_runner import SampleProgress, prepare_cell, run_cell
from gauntlet.bench.run.damaged_blocks import Note, log_note, set_aside_damaged
from gauntlet.bench.run.reuse import reuse_blocks
from gauntlet.bench.worker.messages import PreparedCell
from gauntlet.bench.worker.request import Request
from gauntlet.bench.worker.seam import Work
from gauntlet.leaderboard.gate.baseline import Baseline, BaselineCell, Key, devices, spec_digest
from gauntlet.leaderboard.gate.compared_cell import ComparedCell
from gauntlet.leaderboard.gate.judge import obstacle
from gauntlet.leaderboard.gate.policy import Policy
from gauntlet.leaderboard.gate.trace import Trace, sample_order
from gauntlet.leaderboard.gate.verdicts import is_certain
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CellError, CellResult, Record
from gauntlet.leaderboard.results.store import Store

CHUNK = 50
"""Samples between two evaluations of the test. The verdict does not depend on it."""


@dataclass(frozen=True)
class EarlyCell:
    """A cell that is attacked for a gate, with everything that this needs."""

    prepared: PreparedCell
    request: Request
    work: Work
    store: Store
    fresh: bool
    """Whether stored blocks are computed again."""
    baseline: Baseline
    policy: Policy
    key: Key
    old: BaselineCell | None
    """The baseline's cell; None if the baseline does not have it."""
    cross_replay: CrossReplay
    reused: Store | None = None
    """A store whose blocks are taken where they fit."""
    note: Note = log_note
    """Is told of damaged blocks."""

    @property
    def indices(self) -> list[int]:
        """Indices into the data, in the order of the baseline's bits."""
        return [index for block in self.prepared.blocks for index in block.indices]

    @property
    def ids(self) -> list[str]:
        """Ids of the samples, in the same order."""
        return [name for block in self.prepared.blocks for name in block.ids]


def run_early(cell: EarlyCell, progress: SampleProgress | None = None) -> tuple[Trace, CellResult | None]:
    """Attack a cell until its verdict is certain. Returns the compared samples, and the failed result if the attack failed.

    Nothing is attacked if the cell cannot be compared with the baseline's. Raises StoreError.
    """
    trace = _trace(cell, _Decisions.start(cell.old, len(cell.indices)))
    if cell.old is None or obstacle(cell.old, trace.cell):
        return trace, None
    for decisions, failure in _decide(cell, cell.old):
        before = len(trace.order)
        trace = _trace(cell, decisions)
        if progress is not None:
            progress(len(trace.order) - before)
        if failure is not None:
            return trace, failure
        compared = ComparedCell.of(cell.old, trace.cell, trace)
        if is_certain(compared, cell.policy, cell.baseline.test, len(cell.baseline.cells)):
            break
    return trace, None


@dataclass
class _Decisions:
    """The outcome of each sample, in the order of the baseline's bits."""

    before: npt.NDArray[np.bool_]
    """Robust in the baseline."""
    now: npt.NDArray[np.bool_]
    """Robust now."""
    done: npt.NDArray[np.bool_]
    """Decided."""
    records: list[Record]
    excused: int = 0

    @classmethod
    def start(cls, old: BaselineCell | None, n: int) -> _Decisions:
        """No sample is decided."""
        none = np.zeros(n, dtype=np.bool_)
        before = none.copy() if old is None or len(old.robust) != n else old.robust.copy()
        return cls(before, none.copy(), none.copy(), [])


def _decide(cell: EarlyCell, old: BaselineCell) -> Iterator[tuple[_Decisions, CellResult | None]]:
    """The decisions after each chunk of samples, and the failed result if the attack failed."""
    decisions = _Decisions.start(old, old.n)
    for chunk in _chunks(cell, old):
        replayed = [at for at in chunk if not old.robust[at]] if not _needs_all_at_once(cell) else []
        decisions.done[cell.cross_replay.broken_now(replayed)] = True
        rest = [at for at in chunk if not decisions.done[at]]
        if failure := _attack(cell, decisions, rest):
            yield decisions, failure
            return
        # The baseline's example may break a sample that the attack did not break.
        unbroken = [at for at in rest if decisions.now[at] and not old.robust[at]]
        decisions.now[cell.cross_replay.broken_now(unbroken)] = False
        # A new example may break the baseline's model too: then the baseline's attack had missed it.
        new_examples = {at: image for at, image in _examples(cell, decisions, rest).items() if old.robust[at]}
        missed = cell.cross_replay.broken_before(new_examples)
        decisions.before[missed] = False
        decisions.excused += len(missed)
        decisions.done[rest] = True
        yield decisions, None


def _needs_all_at_once(cell: EarlyCell) -> bool:
    """Whether all samples are taken at once: they are stored already, or the attack's outcome depends on its batch."""
    stored = not cell.fresh and all(cell.store.has(block.key) for block in cell.prepared.blocks)
    return stored or not cell.prepared.separable


def _chunks(cell: EarlyCell, old: BaselineCell) -> Iterator[Sequence[int]]:
    """Positions of the samples, chunk by chunk."""
    if _needs_all_at_once(cell):
        yield range(old.n)
        return
    order = sample_order(old).tolist()
    if cell.baseline.test == "fixed":
        # Samples that the baseline broke are cheap and cannot be lost: after them, a few losses decide.
        order.sort(key=lambda at: bool(old.robust[at]))
    yield from (order[start : start + CHUNK] for start in range(0, old.n, CHUNK))


def _attack(cell: EarlyCell, decisions: _Decisions, rest: Sequence[int]) -> CellResult | None:
    """Attack the samples at these positions, or read their stored outcomes. Returns the failed result if the attack failed."""
    indices = cell.indices
    if not rest:
        return None
    blocks = None if len(rest) == len(indices) else (tuple(indices[at] for at in rest),)
    request, ready = prepare_cell(replace(cell.request, blocks=blocks), cell.work, cell.store.measurements)
    if isinstance(ready, CellError):
        return CellResult(cell.prepared.cell, (), ready)
    set_aside_damaged(ready, cell.store, cell.note)
    if cell.reused is not None:
        reuse_blocks(ready, cell.reused, cell.store, cell.note)
    result = run_cell(request, ready, cell.work, cell.store, fresh=cell.fresh)
    if result.error is not None:
        return result
    decisions.records += result.blocks
    # As a baseline has it: for a randomised model the scoring draws decide.
    decisions.now[list(rest)] = cells.outcomes(result).robust
    return None


def _examples(cell: EarlyCell, decisions: _Decisions, rest: Sequence[int]) -> dict[int, npt.NDArray[np.floating]]:
    """The new adversarial examples, by position, of samples that were robust before."""
    lost = [at for at in rest if decisions.before[at] and not decisions.now[at]]
    ids = cell.ids
    position = {ids[at]: at for at in lost}
    examples = {}
    for record in decisions.records:
        if not position.keys() & set(record.samples.id.tolist()):
            continue
        samples = cell.store.read(record.key, adversarial=True).samples
        for sample, image, distance in zip(samples.id.tolist(), samples.adversarial, samples.distance, strict=True):
            if sample in position and image is not None and distance <= cell.cross_replay.radius:
                examples[position[sample]] = image
    return examples


def _trace(cell: EarlyCell, decisions: _Decisions) -> Trace:
    info, ids = cell.prepared.cell, cell.ids
    order = np.zeros(0, np.int64) if cell.old is None or not decisions.done.any() else sample_order(cell.old)
    order = order[decisions.done[order]]
    costs = cells.costs(CellResult(info, tuple(decisions.records)))
    samples = [(record.samples, record.cached) for record in decisions.records]
    replayed = cell.cross_replay.forwards
    return Trace(
        key=cell.key,
        n=len(decisions.done),
        order=order,
        before=decisions.before[order],
        now=decisions.now[order],
        spec=spec_digest(info, info.precision),
        weights=cell.prepared.weights,
        data_digest=cell.prepared.data,
        forwards=float(sum(one.forwards.sum() for one, _ in samples)) + replayed,
        backwards=float(sum(one.backwards.sum() for one, _ in samples)),
        computed=float(sum(one.forwards.sum() + one.backwards.sum() for one, cached in samples if not cached))
        + replayed,
        peak_memory_mib=costs.peak_memory_mib,
        seconds=costs.seconds,
        device=devices(record.provenance for record in decisions.records),
        randomised=info.randomised,
        replay=cell.cross_replay.reason,
        lost=tuple(ids[at] for at in order if decisions.before[at] and not decisions.now[at]),
        records=tuple(record.key for record in decisions.records),
        excused=decisions.excused,
        masked=cells.masked(CellResult(info, tuple(decisions.records))) if decisions.records else 0,
    )
