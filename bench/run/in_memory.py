"""Running cells whose results are kept nowhere: the same preparing, attacks, verification and records, and no files."""

from __future__ import annotations

from contextlib import closing

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.environment.foreign_exit import exits_reported
from gauntlet.bench.environment.stopwatch import Stopwatch, measured_by
from gauntlet.bench.executors.executable import RunSettings
from gauntlet.bench.prepare.prepare import Workbench
from gauntlet.bench.run.cell_runner import cell_error
from gauntlet.bench.worker.attack_blocks import attack_blocks, check_pipeline
from gauntlet.bench.worker.work import failure
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.record import CellResult, Record


def run_in_memory(workbench: Workbench, cell: Cell, settings: RunSettings) -> CellResult:
    """Run all blocks of a cell. The records of the result have their adversarial examples.

    A failure of the model, the attack or the verifier becomes the result's error. Raises StoreError.
    """
    records: dict[str, Record] = {}
    info, expected, watch = cell.info, 0, Stopwatch()
    with measured_by(watch):
        try:
            with exits_reported():
                prepared = workbench.prepare(cell)
                info, expected = prepared.cell.info, sum(len(block.indices) for block in prepared.blocks)
                # As in a run with a store: before the attack, which then starts with the global generators as seeded.
                check_pipeline(prepared, settings.batch_size)
                with closing(attack_blocks(prepared, prepared.blocks, settings)) as finished:
                    for record in finished:
                        records[record.key] = record
        except StoreError:
            raise
        except Exception as exception:
            error = cell_error(cell, failure(exception, workbench.device))
            return CellResult(info, tuple(records.values()), error, expected=expected)
    # Blocks finish in any order.
    ordered = tuple(records[block.key] for block in prepared.blocks)
    return CellResult(info, ordered, expected=expected, spent=watch.spent)
