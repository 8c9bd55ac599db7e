"""A shard of a run: its blocks of each cell are attacked and stored; no table is written, and nothing is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gauntlet.bench.cli.progress import in_turn
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.results.record import CellError

if TYPE_CHECKING:
    from gauntlet.bench.run.engine import Engine


def run_shard(engine: Engine) -> list[str]:
    """Run the shard's blocks of every cell, and return a sentence for each cell that failed.

    Replays try the examples of all blocks, so they are left to the run without a shard that ends the work.
    """
    shard, cells = engine.config.shard, engine.run.plan.cells
    own, stored, unknown, failed = 0, 0, 0, []
    left = [cell for cell in cells if cell.info.replays]
    for cell, tell in in_turn(engine.run.plan, [cell for cell in cells if not cell.info.replays]):
        engine.worker.watch = tell.work
        ready = engine.prepare(cell)
        if isinstance(ready, CellError):
            unknown += 1
            failed.append(f"{tell.title}: {ready.kind}")
            tell.end(f"ERROR {visible(ready.message)}")
            continue
        due = engine.due(ready)
        tell.total(sum(block.size for block in due))
        before = sum(engine.run.store.has(block.key) for block in due)
        result = engine.execute(ready, tell.advance)
        there = sum(engine.run.store.has(block.key) for block in due)
        own, stored = own + len(due), stored + there
        line = f"{there} of {len(due)} blocks stored, {before} of them before"
        if result.error is not None:
            failed.append(f"{tell.title}: {result.error.kind}")
            line = f"ERROR {visible(result.error.message)} ({line})"
        tell.end(line)
    found = f"{stored} of its {own} blocks are stored" if own else "none of the blocks is its own"
    if unknown:
        found += f"; {unknown} of the cells failed before their blocks were known"
    click.echo(f"\nshard {shard}: {found} (results folder: {visible(str(engine.run.root))})")
    if left:
        click.echo(f"left to the run without a shard, which needs all blocks: {len(left)} cells of replay")
    click.echo(
        "when all shards have ended: the same command without --shard makes the tables; where they have folders of their own, "
        "join these first by gauntlet merge"
    )
    return failed
