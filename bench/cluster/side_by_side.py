"""Calls side by side, each in a thread, whose results come in the order in which they end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(
    items: Sequence[T], call: Callable[[T], R], *, most: int, stop: Callable[[], None]
) -> Generator[tuple[T, R]]:
    """Each item with `call(item)`, at most `most` calls at a time, begun in order. Raises what a call raises.

    Where the caller leaves, or a call raises, `stop` is called, which must make the other calls end; they are waited for. Close
    the generator in every case.
    """
    ended: SimpleQueue[tuple[T, R | None, BaseException | None]] = SimpleQueue()
    rest: Iterator[T] = iter(items)
    lock, stopped = threading.Lock(), threading.Event()

    def run() -> None:
        while not stopped.is_set():
            with lock:
                item = next(rest, ended)
            if item is ended:
                return
            try:
                ended.put((item, call(item), None))  # type: ignore[arg-type]
            except BaseException as error:
                ended.put((item, None, error))  # type: ignore[arg-type]
                return

    threads = [threading.Thread(target=run, name="gauntlet-cell", daemon=True) for _ in range(min(most, len(items)))]
    for thread in threads:
        thread.start()
    try:
        for _ in items:
            item, result, error = ended.get()
            if error is not None:
                raise error
            yield item, result  # type: ignore[misc]
    except BaseException:
        stopped.set()
        stop()
        raise
    finally:
        for thread in threads:
            thread.join()
