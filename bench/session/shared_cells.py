"""Cells that run side by side on a cluster while the tests of a pytest run wait for them, one after another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from typing import Generic, TypeVar

from gauntlet.bench.cluster.side_by_side import side_by_side
from gauntlet.bench.cluster.worker_pool import WorkerPool
from gauntlet.bench.config.cell import Cell

R = TypeVar("R")


class SharedCells(Generic[R]):
    """The results of cells, which a thread has made by a pool's workers."""

    def __init__(self, cells: Sequence[Cell], finish: Callable[[Cell], R], pool: WorkerPool) -> None:
        """`finish`: runs a cell; called from several threads, as many as the pool has workers and one more."""
        self._finish, self._pool = finish, pool
        self._cells = cells
        self._futures: dict[tuple[str, str], Future[R]] = {_name(cell): Future() for cell in cells}
        self._thread = threading.Thread(target=self._run, name="gauntlet-cells", daemon=True)
        self._thread.start()

    def result(self, cell: Cell) -> R:
        """The result of a cell, once there is one. Raises what running it raised."""
        return self._futures[_name(cell)].result()

    def close(self) -> None:
        """End the workers, and what they have not finished."""
        self._pool.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            # Replays try the examples of all other cells.
            for replays in (False, True):
                cells = [cell for cell in self._cells if cell.info.replays == replays]
                most = self._pool.size + 1
                with closing(side_by_side(cells, self._settle, most=most, stop=self._pool.close)) as ended:
                    for _ in ended:
                        pass
        except BaseException as error:
            for future in self._futures.values():
                if not future.done():
                    future.set_exception(error)

    def _settle(self, cell: Cell) -> None:
        try:
            self._futures[_name(cell)].set_result(self._finish(cell))
        except Exception as error:
            self._futures[_name(cell)].set_exception(error)


def _name(cell: Cell) -> tuple[str, str]:
    return cell.name, cell.info.suite
