"""The progress of a run: bars on a terminal, elsewhere a line for each cell."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from gauntlet.leaderboard.results.escape import visible

if TYPE_CHECKING:  # elsewhere than on a terminal, rich is not imported
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from gauntlet.bench.config.cell import Cell
    from gauntlet.bench.planning.plan import Plan
    from gauntlet.leaderboard.results.record import CellResult


@dataclass
class CellWork:
    """How far a cell is."""

    samples: int | None
    finished: int = 0
    before: int = 0
    """Samples that were finished when the attack on the others began."""
    worked: float = 0.0
    """Share of the work on the others."""

    @property
    def completed(self) -> float:
        """Finished samples, or the same work on all of them if that is more."""
        if self.samples is None:
            return self.finished
        return min(self.samples, max(self.finished, self.before + self.worked * (self.samples - self.before)))

    def work(self, share: float) -> None:
        """This share, in 0..1, of the work on the samples that were not finished at first is done."""
        if not self.worked:
            self.before = self.finished
        self.worked = share


@dataclass
class _CellBar:
    """The bar of the cell that is running."""

    task: TaskID
    cell: CellWork


class Bars:
    """A bar for all cells, and one for the cell that is running. Both move with its work, and its count with finished samples."""

    def __init__(self, progress: Progress, cells: int) -> None:
        self._progress = progress
        self._cells, self._done = cells, 0
        self._overall = progress.add_task("cells", total=cells, count=f"0/{cells}")
        self._cell: _CellBar | None = None

    def begin(self, title: str, samples: int | None) -> None:
        """Show a bar for a cell with so many samples; None: their number is not known."""
        task = self._progress.add_task(title, total=samples, count=count(0, samples))
        self._cell = _CellBar(task, CellWork(samples))

    def total(self, samples: int) -> None:
        """The cell has so many samples."""
        if self._cell is not None:
            self._cell.cell.samples = samples
            self._progress.update(self._cell.task, total=samples)
            self._show(self._cell)

    def advance(self, samples: int) -> None:
        """So many more samples of the cell are finished."""
        if self._cell is not None:
            self._cell.cell.finished += samples
            self._show(self._cell)

    def work(self, share: float) -> None:
        """This share, in 0..1, of the work on the samples that were not finished at first is done."""
        if self._cell is not None:
            self._cell.cell.work(share)
            self._show(self._cell)

    def end(self, line: str) -> None:
        """Replace the bar of the cell by a line."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
        if self._cell is not None:
            self._progress.remove_task(self._cell.task)
            self._cell = None
        self._done += 1
        self._progress.update(self._overall, completed=self._done, count=count(self._done, self._cells))

    def _show(self, bar: _CellBar) -> None:
        cell, completed = bar.cell, bar.cell.completed
        self._progress.update(bar.task, completed=completed, count=count(cell.finished, cell.samples))
        self._progress.update(self._overall, completed=self._done + (completed / cell.samples if cell.samples else 0))


def count(finished: int, total: int | None) -> str:
    """So many of so many; `total` None: not known."""
    return f"{finished}/{'?' if total is None else total}"


@contextmanager
def progress_bars(cells: int, console: Console | None = None) -> Iterator[Bars]:
    """Bars on standard error, as long as the context is open."""
    with columns(console) as progress:
        yield Bars(progress, cells)


def columns(console: Console | None = None) -> Progress:
    """A display of bars on standard error, with count, time and time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console or Console(stderr=True),
    )


class Tell:
    """Shows the progress of one cell: a bar on a terminal, elsewhere a line at its end."""

    def __init__(self, title: str, bars: Any = None) -> None:
        self.title = title
        self._bars = bars

    def total(self, samples: int) -> None:
        """The cell has so many samples."""
        if self._bars is not None:
            self._bars.total(samples)

    def advance(self, samples: int) -> None:
        """So many more samples are finished."""
        if self._bars is not None:
            self._bars.advance(samples)

    def work(self, share: float) -> None:
        """This share of the work on the other samples is done."""
        if self._bars is not None:
            self._bars.work(share)

    def end(self, line: str) -> None:
        """The cell is finished."""
        if self._bars is not None:
            self._bars.end(f"{self.title}: {line}")
        else:
            click.echo(f"{self.title}: {line}", err=True)


def in_turn(plan: Plan, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Tell]]:
    """Cells of a plan, each with an object that shows its progress."""
    if sys.stderr.isatty():
        context: Any = progress_bars(len(cells))
    else:
        context = nullcontext()
    with context as bars:
        for cell in cells:
            title = visible(plan.title(cell))
            if bars is not None:
                bars.begin(title, None)
            yield cell, Tell(title, bars)


def result_line(result: CellResult) -> str:
    """The outcome of a cell, its cost, and whether it was stored."""
    from gauntlet.leaderboard.report.cell_text import describe_cell
    from gauntlet.leaderboard.results import cell_summary as cells

    if result.error is not None:
        return f"ERROR {visible(result.error.message)}"
    cost = cells.costs(result)
    stored = " (stored)" if all(block.cached for block in result.blocks) else ""
    return f"{describe_cell(result)}, {cost.seconds:.1f} s{stored}"
