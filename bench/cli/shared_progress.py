"""Progress of cells that run side by side: one bar over all, with the time that is left; elsewhere a line for each."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gauntlet.bench.cli.progress import CellWork, Tell, columns, count

if TYPE_CHECKING:  # elsewhere than on a terminal, rich is not imported
    from rich.console import Console
    from rich.progress import Progress


class SharedBar:
    """A bar over all cells. It moves with the work on each of them, from whichever thread that is told."""

    def __init__(self, progress: Progress, cells: int) -> None:
        self._progress, self._total = progress, cells
        self._lock = threading.Lock()
        self._cells: list[CellWork] = []
        self._ended = 0
        self._task = progress.add_task("cells", total=cells, count=count(0, cells))

    def cell(self) -> CellOfBar:
        """A cell that begins."""
        work = CellWork(None)
        with self._lock:
            self._cells.append(work)
        return CellOfBar(self, work)

    def change(self, change: Callable[[], None]) -> None:
        """Change the state of a cell, and show it."""
        with self._lock:
            change()
            share = sum(one.completed / one.samples for one in self._cells if one.samples)
            self._progress.update(self._task, completed=self._ended + share)

    def end(self, work: CellWork, line: str) -> None:
        """A cell has ended: show its line."""
        with self._lock:
            self._cells.remove(work)
            self._ended += 1
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._progress.update(self._task, count=count(self._ended, self._total))
        self.change(lambda: None)


class CellOfBar:
    """A cell's part of the bar over all cells."""

    def __init__(self, bar: SharedBar, work: CellWork) -> None:
        self._bar, self._cell = bar, work

    def total(self, samples: int) -> None:
        """The cell has so many samples."""
        self._bar.change(lambda: setattr(self._cell, "samples", samples))

    def advance(self, samples: int) -> None:
        """So many more samples are finished."""
        self._bar.change(lambda: setattr(self._cell, "finished", self._cell.finished + samples))

    def work(self, share: float) -> None:
        """This share, in 0..1, of the work on the other samples is done."""
        self._bar.change(lambda: self._cell.work(share))

    def end(self, line: str) -> None:
        """The cell is finished."""
        self._bar.end(self._cell, line)


@contextmanager
def side_by_side_progress(cells: int, console: Console | None = None) -> Iterator[Callable[[str], Tell]]:
    """A function from the title of a cell that begins to an object that shows its progress."""
    if console is None and not sys.stderr.isatty():
        yield Tell
        return
    with columns(console) as progress:
        bar = SharedBar(progress, cells)
        yield lambda title: Tell(title, bar.cell())
