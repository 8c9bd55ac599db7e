"""Resuming a cell: reading its stored blocks, and checking that the model still gives the same results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gauntlet.bench.worker.messages import BlockInfo, PreparedCell
from gauntlet.bench.worker.request import StoredLogits
from gauntlet.bench.worker.seam import StoredResultError
from gauntlet.leaderboard.results.record import Record
from gauntlet.leaderboard.results.store import Store

_CLEAR = 1e-4
"""A verdict with a margin of more than this share of the block's largest margin cannot flip by rounding."""


def stored_records(blocks: Sequence[BlockInfo], store: Store) -> dict[str, Record]:
    """The stored records of these blocks by key, marked as cached."""
    keys = [block.key for block in blocks if store.has(block.key)]
    return {key: replace(store.read(key), cached=True) for key in keys}


def expected_logits(prepared: PreparedCell, records: Mapping[str, Record]) -> StoredLogits | None:
    """The stored clean logits of the first block, which the model must reproduce; None if none are stored."""
    first = records.get(prepared.blocks[0].key) if prepared.blocks else None
    if first is None or first.clean_logits is None:
        return None
    return StoredLogits(0, tuple(tuple(row) for row in first.clean_logits.tolist()))


def check_same(fresh: Record, stored: Record) -> None:
    """Raise StoredResultError if a block that was run again has other verdicts than the stored block."""
    if fresh.cell.randomised:
        return
    differ = np.flatnonzero(fresh.samples.robust != stored.samples.robust)
    # Verdicts with margins within rounding may differ on other hardware or with another number of threads.
    bound = _CLEAR * max(float(np.abs(one.samples.margin).max(initial=0)) for one in (fresh, stored))
    clear = [i for i in differ if abs(fresh.samples.margin[i]) > bound or abs(stored.samples.margin[i]) > bound]
    if clear:
        raise StoredResultError(
            f"{fresh.cell.title}: {len(clear)} of {len(fresh.samples)} verdicts differ from the stored verdicts of the same key, "
            f"first at {fresh.samples.id[clear[0]]}: the stored block is kept; the model or the attack is not reproducible"
        )
