"""Blocks are encoded and written by a thread while the next ones are computed."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

from gauntlet.bench.environment.stopwatch import timed

T = TypeVar("T")
_log = logging.getLogger(__name__)

MOST = 2
"""Items that may be due, the present one included: they are in memory."""


@contextmanager
def write_behind(write: Callable[[T], None]) -> Iterator[Callable[[T], None]]:
    """Within the context, a function that has a thread call `write(item)`, one item after another in order.

    At the end of the context all items are written, also where it ends by an exception or an interrupt. An error of `write` is
    raised by a later call, or at the end; where the context ends by another exception, it is logged. Where `MOST` items are due,
    a call waits; waiting counts as time of storing.
    """
    due: deque[Future[None]] = deque()

    def settle(most: int) -> None:
        """Raise errors of what is done, and wait until at most so many items are due."""
        while due and (len(due) > most or due[0].done()):
            with timed("store"):
                wait([due[0]])
            due.popleft().result()

    def put(item: T) -> None:
        settle(MOST - 1)
        due.append(pool.submit(write, item))

    # Leaving the pool waits for its thread, whatever ends the context.
    with ThreadPoolExecutor(1, thread_name_prefix="gauntlet-write") as pool:
        try:
            yield put
        except BaseException:
            for item in due:
                if (error := item.exception()) is not None:
                    _log.error("a block was not stored: %s", error)
            raise
        settle(0)
