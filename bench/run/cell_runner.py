"""Running one cell: the worker computes the blocks that the store does not hold, and each is stored when it is finished."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.config.shard import Shard
from gauntlet.bench.environment.stopwatch import timed
from gauntlet.bench.run.check_messages import MessageError, check_prepared, checked_record
from gauntlet.bench.run.resume import check_same, expected_logits, stored_records
from gauntlet.bench.run.write_behind import write_behind
from gauntlet.bench.worker.messages import BlockInfo, BlockRecord, Failure, PreparedCell, Progress
from gauntlet.bench.worker.request import Request
from gauntlet.bench.worker.seam import Work, answer
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.measurements import Measurements
from gauntlet.leaderboard.results.record import CellError, CellResult, Record
from gauntlet.leaderboard.results.store import Store, Timing

SampleProgress = Callable[[int], None]
"""Called with the number of samples that have just been finished."""


class _BlockError(Exception):
    """A block cannot be encoded, or differs from the stored one."""

    def __init__(self, error: CellError) -> None:
        super().__init__(error.message)
        self.error = error


def prepare_cell(
    request: Request, work: Work, measurements: Measurements, *, dry: bool = False
) -> tuple[Request, PreparedCell | CellError]:
    """Have the worker prepare a cell, and store its measurements. Raises StoreError.

    If several workers measure the same pipeline, the measurements that were stored first count; the returned request has them.
    `dry`: stored measurements are read, and nothing is stored.
    """
    cell = request.cell
    request = replace(request, measured=measurements.of_cell(cell.pipeline_name))
    while True:
        # A worker may end after its answer.
        message = answer(work, request)
        if isinstance(message, Failure):
            return request, cell_error(cell, message)
        try:
            message = check_prepared(request, message)
        except MessageError as problem:
            return request, CellError(cell.info, "WorkerMessageError", str(problem))
        if dry:
            return request, message
        name, known = cell.pipeline_name, request.measured
        taken = {key: measured for key, measured in message.measured.items() if key not in known}
        settled = {key: measurements.settle(name, key, measured) for key, measured in taken.items()}
        request = replace(request, measured={**known, **settled})
        if settled == taken:
            return request, message


def run_cell(
    request: Request,
    prepared: PreparedCell,
    work: Work,
    store: Store,
    *,
    fresh: bool = False,
    shard: Shard | None = None,
    progress: SampleProgress = lambda count: None,
) -> CellResult:
    """Run the missing blocks of a prepared cell, or of a shard of it, store them, and return all of its blocks that are stored.

    A failure of the model, the attack or the verifier becomes the result's error, which is stored beside the finished blocks.
    StoreError and KeyboardInterrupt propagate.
    """
    due = own_blocks(request.cell, prepared, shard)
    with timed("store"):
        records = {} if fresh else stored_records(due, store)
    progress(sum(len(record.samples) for record in records.values()))
    missing = [block.key for block in due if block.key not in records]
    expected = expected_logits(prepared, records)
    error = None
    if missing or expected is not None:
        if missing:
            request, checked = prepare_cell(replace(request, check=True), work, store.measurements)
            error = checked if isinstance(checked, CellError) else None
        if error is None:
            request = replace(request, check=False, run=tuple(missing), expected=expected)
            error = _run(request, prepared, work, store, records, progress)
    name = error_name(request.cell, shard)
    if error is None:
        store.clear_error(name)
    else:
        store.write_error(name, error)
    ordered = tuple(records[block.key] for block in prepared.blocks if block.key in records)
    return CellResult(prepared.cell, ordered, error, expected=prepared.samples)


def error_name(cell: Cell, shard: Shard | None) -> str:
    """The name of the cell's error in the store; each shard has its own."""
    return cell.name if shard is None else f"{cell.name}.{shard.name}"


def own_blocks(cell: Cell, prepared: PreparedCell, shard: Shard | None) -> list[BlockInfo]:
    """The blocks of a cell that a shard runs; without one, all."""
    return [block for number, block in enumerate(prepared.blocks) if shard is None or shard.owns(cell.name, number)]


def _run(
    request: Request,
    prepared: PreparedCell,
    work: Work,
    store: Store,
    records: dict[str, Record],
    progress: SampleProgress,
) -> CellError | None:
    """Store the blocks that the worker sends, and add them to `records`. Returns the error if the worker failed."""
    due = set(request.run)

    def keep(block: BlockRecord) -> None:
        try:
            record = checked_record(prepared, block, examples=store.held is not None)
            if block.key not in due:
                raise MessageError(f"the worker sent the block {block.key!r}, which was not due")
            _store(store, block, record)
            records[block.key] = record
            due.remove(block.key)
        except StoreError:
            raise
        except Exception as problem:
            error = CellError(request.cell.info, type(problem).__name__, str(problem), traceback.format_exc())
            raise _BlockError(error) from problem

    try:
        with closing(work(request)) as messages, write_behind(keep) as write:
            for message in messages:
                if isinstance(message, BlockRecord):
                    write(message)
                elif isinstance(message, Progress):
                    progress(message.samples)
                elif isinstance(message, Failure):
                    return cell_error(request.cell, message)
    except _BlockError as problem:
        return problem.error
    if due:
        return CellError(request.cell.info, "WorkerMessageError", f"the worker did not send {len(due)} of its blocks")
    return None


def _store(store: Store, block: BlockRecord, record: Record) -> None:
    """Store a block. Raises StoreError, and StoredResultError if a stored block of that key has other verdicts."""
    if not store.add(block.key, block.content):
        check_same(record, store.read(block.key))
        _note_timing(store, record)


def _note_timing(store: Store, record: Record) -> None:
    """Keep what a block cost that had been stored before: the tables show its latest run."""
    time = str(record.provenance.get("time", ""))
    store.note_timing(record.key, Timing(record.stats.seconds, record.stats.peak_memory_mib, time))


def cell_error(cell: Cell, failure: Failure) -> CellError:
    """The stored form of a failure."""
    return CellError(cell.info, failure.kind, failure.message, failure.traceback, failure.provenance)
