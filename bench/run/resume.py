"""Resuming: which blocks of a cell the store holds already, and whether they are still what the model gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from gauntlet.bench.worker.messages import PreparedCell
from gauntlet.bench.worker.request import StoredLogits
from gauntlet.bench.worker.work import StoredResultError
from gauntlet.leaderboard.results.record import Record
from gauntlet.leaderboard.results.store import Store

_CLEAR = 1e-4
"""A verdict whose margin is larger than this is not a matter of rounding."""


def stored_records(prepared: PreparedCell, store: Store, *, fresh: bool) -> dict[str, Record]:
    """The records of the blocks that the store holds, by key, marked as cached; none where all are to be run afresh."""
    if fresh:
        return {}
    keys = [block.key for block in prepared.blocks if store.has(block.key)]
    return {key: replace(store.read(key), cached=True) for key in keys}


def expected_logits(prepared: PreparedCell, records: Mapping[str, Record]) -> StoredLogits | None:
    """The stored clean logits of the first block, which the model must still give; None where none are stored."""
    first = records.get(prepared.blocks[0].key) if prepared.blocks else None
    if first is None or first.clean_logits is None:
        return None
    return StoredLogits(0, tuple(tuple(row) for row in first.clean_logits.tolist()))


def check_same(fresh: Record, stored: Record) -> None:
    """Raise StoredResultError where a block that was run afresh gives other verdicts than the stored one."""
    if fresh.cell.randomised:
        return
    differ = np.flatnonzero(fresh.samples.robust != stored.samples.robust)
    # A margin within rounding may fall either way on other hardware or with another number of threads.
    clear = [i for i in differ if abs(fresh.samples.margin[i]) > _CLEAR or abs(stored.samples.margin[i]) > _CLEAR]
    if clear:
        raise StoredResultError(
            f"{fresh.cell.title}: {len(clear)} of {len(fresh.samples)} verdicts differ from the stored ones of the same key, "
            f"first at {fresh.samples.id[clear[0]]}: the stored block is kept; the model or the attack is not reproducible"
        )
