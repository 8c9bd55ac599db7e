"""Stored blocks that are not what was written are set aside, so that a run computes them again."""

from __future__ import annotations

import logging
from collections.abc import Callable

from gauntlet.bench.worker.messages import PreparedCell
from gauntlet.leaderboard.results.errors import DamagedBlockError
from gauntlet.leaderboard.results.store import Store

Note = Callable[[str], None]
"""Called with a sentence for the user."""

log_note: Note = logging.getLogger(__name__).warning


def set_aside_damaged(prepared: PreparedCell, store: Store, note: Note = log_note) -> None:
    """Move the cell's damaged blocks to `damaged/` below the results folder, with a note for each. Raises StoreError.

    Blocks are read without their examples: those are checked where they are read.
    """
    for block in prepared.blocks:
        if not store.has(block.key):
            continue
        try:
            size = len(store.read(block.key).samples)
            found = "" if size == block.size else f"{store.place(block.key)} has {size} samples instead of {block.size}"
        except DamagedBlockError as error:
            found = error.found
        if found:
            place = store.set_aside(block.key)
            note(f"warning: {found}: moved to {place}, and computed again")
