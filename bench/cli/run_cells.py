"""Running the cells of a plan: one after another, or side by side on the workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import TYPE_CHECKING, cast

from gauntlet.bench.cli.progress import Tell, in_turn

if TYPE_CHECKING:
    from gauntlet.bench.cluster.worker_pool import WorkerPool
    from gauntlet.bench.config.cell import Cell
    from gauntlet.bench.run.engine import Engine, ReadyCell
    from gauntlet.leaderboard.results.record import CellError, CellResult

Finished = tuple["Cell", Tell, "CellResult"]


def run_cells(engine: Engine, prepare: Callable[[Cell, Tell], ReadyCell | CellError]) -> Generator[Finished]:
    """Each cell of the engine's plan with its result and what shows its progress, in the order in which they are finished.

    `prepare` prepares a cell. Close the generator in every case.
    """
    if engine.config.cluster is None:
        for cell, tell in in_turn(engine.run.plan, engine.run.plan.cells):
            yield cell, tell, engine.finish(cell, prepare(cell, tell), tell.advance)
        return
    yield from _side_by_side(engine, prepare)


def _side_by_side(engine: Engine, prepare: Callable[[Cell, Tell], ReadyCell | CellError]) -> Generator[Finished]:
    from gauntlet.bench.cli.shared_progress import side_by_side_progress
    from gauntlet.bench.cluster.side_by_side import side_by_side
    from gauntlet.leaderboard.results.escape import visible

    plan, pool = engine.run.plan, cast("WorkerPool", engine.worker)
    with side_by_side_progress(len(plan.cells)) as begin:

        def finish(cell: Cell) -> tuple[Tell, CellResult]:
            tell = begin(visible(plan.title(cell)))
            return tell, engine.finish(cell, prepare(cell, tell), tell.advance)

        # Replays try the examples of all other cells.
        for replays in (False, True):
            cells = [cell for cell in plan.cells if cell.info.replays == replays]
            # One more than there are workers, so that none waits while a cell ends.
            with closing(side_by_side(cells, finish, most=pool.size + 1, stop=pool.close)) as results:
                for cell, (tell, result) in results:
                    yield cell, tell, result
