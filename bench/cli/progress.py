"""Progress bars of a run on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Bars:
    """A bar for all cells, and one for the cell that is running."""

    def __init__(self, progress: Progress, cells: int) -> None:
        self._progress = progress
        self._overall = progress.add_task("cells", total=cells)
        self._current: TaskID | None = None

    def begin(self, title: str, samples: int | None) -> None:
        """Show a bar for a cell with so many samples; None: their number is not known."""
        self._current = self._progress.add_task(title, total=samples)

    def advance(self, samples: int) -> None:
        """Move the bar of the cell."""
        if self._current is not None:
            self._progress.advance(self._current, samples)

    def end(self, line: str) -> None:
        """Replace the bar of the cell by a line."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
        if self._current is not None:
            self._progress.remove_task(self._current)
        self._progress.advance(self._overall)


@contextmanager
def progress_bars(cells: int) -> Iterator[Bars]:
    """Bars on standard error, as long as the context is open."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield Bars(progress, cells)
