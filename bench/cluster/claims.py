"""Names that one thread at a time may work on."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Claims:
    """Names, such as keys of blocks, that threads claim while they change what belongs to them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: set[str] = set()

    @contextmanager
    def of(self, names: Iterable[str]) -> Iterator[None]:
        """Hold all these names within the context, once no other thread holds one of them. A thread may not claim twice."""
        wanted = frozenset(names)
        with self._changed:
            self._changed.wait_for(lambda: self._held.isdisjoint(wanted))
            self._held |= wanted
        try:
            yield
        finally:
            with self._changed:
                self._held -= wanted
                self._changed.notify_all()
