"""The engine: has a worker run the cells of a plan that the store does not hold, and stores what it sends."""

from __future__ import annotations

import fnmatch
import shlex
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gauntlet.bench.cluster.claims import Claims
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.config.schema import Config, Expectation
from gauntlet.bench.data.data_name import require_file
from gauntlet.bench.environment.clock import now
from gauntlet.bench.environment.provenance import versions
from gauntlet.bench.environment.stopwatch import Stopwatch, measured_by
from gauntlet.bench.executors.example_index import ExampleIndex
from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.bench.planning.plan import Plan
from gauntlet.bench.run.cell_runner import SampleProgress, cell_error, error_name, own_blocks, prepare_cell, run_cell
from gauntlet.bench.run.damaged_blocks import Note, log_note, set_aside_damaged
from gauntlet.bench.run.prepared_notes import prepared_notes
from gauntlet.bench.run.reuse import reuse_blocks, reuse_measurements, reused_store
from gauntlet.bench.run.run_folder import planned_run, write_run
from gauntlet.bench.worker.messages import BlockInfo, Failure, PreparedCell
from gauntlet.bench.worker.request import Request
from gauntlet.bench.worker.seam import Work, Worker, WorkerSettings, answer
from gauntlet.leaderboard.report.markdown_writer import RunContext
from gauntlet.leaderboard.results.errors import DamagedBlockError
from gauntlet.leaderboard.results.held import Held
from gauntlet.leaderboard.results.packing import LEAST_BLOCKS, pack_blocks
from gauntlet.leaderboard.results.record import CellError, CellResult
from gauntlet.leaderboard.results.store import Store
from gauntlet.leaderboard.rows.bracket import bracket
from gauntlet.leaderboard.rows.worst_case import row_key, worst_case
from gauntlet.leaderboard.stats.proportions import Proportion

if TYPE_CHECKING:  # they import torch
    from gauntlet.bench.executors.executable import RunSettings
    from gauntlet.bench.prepare.prepare import Workbench
    from gauntlet.bench.worker.work import LocalWorker


@dataclass(frozen=True)
class ReadyCell:
    """A prepared cell, and the request that runs it."""

    request: Request
    prepared: PreparedCell


class Engine:
    """A run on one device. Cells can be run in any order, also by several processes on the same folder."""

    def __init__(
        self,
        plan: Plan,
        config: Config,
        *,
        worker: Worker | None = None,
        held: Held | None = None,
        reused: Store | None = None,
        command: str | None = None,
        started: str | None = None,
        dry: bool = False,
        note: Note = log_note,
    ) -> None:
        """`worker`: default, this process. `held`: what counts of the folder, if the worker may change its files; then `reused`
        has the blocks of another one that count. `dry`: write nothing. `note` is told of damaged results, and of what was
        measured of a model that declares nothing.

        Raises ConfigError for a device or precision that is not available, StoreError.
        """
        self.config = config
        self.worker = _local_worker(config) if worker is None else worker
        self.dry = dry
        self.reused = reused if held is not None else reused_store(config, note)
        self.note = note
        self._failed: dict[str, Failure] = {}
        self._said: set[str] = set()
        self._noted: set[str] = set()
        self._watches: dict[tuple[str, str], Stopwatch] = {}
        self._claims = Claims()
        context = self._context(plan, command, started)
        self.run = planned_run(config.out, plan, context, config.plugins, held)
        if not dry:
            write_run(self.run, config.shard)

    @property
    def work(self) -> Work:
        """Answers requests."""
        return self.worker.work

    @property
    def workbench(self) -> Workbench:
        """What the worker of this process has loaded. Raises AttributeError for another worker."""
        return self._local.bench

    @property
    def settings(self) -> RunSettings:
        """How this process runs cells. Raises AttributeError where another process does."""
        from gauntlet.bench.executors.executable import RunSettings

        config = self.config
        return RunSettings(self._local.bench.device, config.batch_size, config.fresh, config.keep_adversarials)

    @property
    def _local(self) -> LocalWorker:
        return cast("LocalWorker", self.worker)

    def begin(self) -> None:
        """Start to write. If all cells have the same model and data, these are loaded first.

        A model or data set that cannot be loaded then raises ValueError or LookupError, and a data file that does not exist
        FileNotFoundError, and nothing is written. Among several models, the cells of a faulty model end in error.
        """
        cells = self.run.plan.cells
        for spec in dict.fromkeys(cell.data.spec for cell in cells):
            require_file(spec)
        if len({(cell.model, cell.data) for cell in cells}) == 1:
            known = self.run.store.measurements.of_cell(cells[0].pipeline_name)
            self.worker.allow(self.config.timeout)
            with self._measured(cells[0]):
                message = answer(self.work, replace(self.request(cells[0]), measured=known))
            if isinstance(message, Failure):
                if message.usage:
                    raise (ModelError if message.kind == ModelError.__name__ else ValueError)(message.message)
                # The cell reports other exceptions of a user's model, with the traceback.
                self._failed[cells[0].name] = message
        write_run(self.run, self.config.shard)
        self.dry = False

    def request(self, cell: Cell) -> Request:
        """The request for a cell under this run's settings."""
        return Request(cell, batch_size=self.config.batch_size, keep_adversarials=self.config.keep_adversarials)

    def prepare(self, cell: Cell) -> ReadyCell | CellError:
        """Load a cell and compute its keys. A failure, such as a model that cannot be built, is stored as the cell's error.

        A worker has the configured time for it, and as much again for the attack.
        """
        self.worker.allow(self.config.timeout)
        if self.reused is not None and not self.dry:
            reuse_measurements(cell.pipeline_name, self.reused, self.run.store, self.note)
        prepared: PreparedCell | CellError
        if (failed := self._failed.pop(cell.name, None)) is not None:
            request, prepared = self.request(cell), cell_error(cell, failed)
        else:
            with self._measured(cell):
                measurements = self.run.store.measurements
                request, prepared = prepare_cell(self.request(cell), self.work, measurements, dry=self.dry)
        if isinstance(prepared, CellError):
            if not self.dry:
                self.run.store.write_error(error_name(cell, self.config.shard), prepared)
            return prepared
        for note in prepared_notes(cell, prepared):
            if note not in self._said:
                self._said.add(note)
                self.note(note)
        if not self.dry:
            with self._claimed(cell, prepared):
                set_aside_damaged(prepared, self.run.store, self.note)
                if self.reused is not None:
                    reuse_blocks(prepared, self.reused, self.run.store, self.note)
                self.run.note_keys(cell, [(block.key, block.size) for block in prepared.blocks])
            self._note_published(cell, prepared)
        return ReadyCell(request, prepared)

    def _note_published(self, cell: Cell, prepared: PreparedCell) -> None:
        """Record the figures that the configuration and the model's card state, once for each model."""
        name = cell.info.model
        if name in self._noted:
            return
        self._noted.add(name)
        stated = [figure for pattern, figure in self.config.published if fnmatch.fnmatchcase(name, pattern)]
        if stated or prepared.published:
            self.run.note_published(name, [*stated, *prepared.published])

    def due(self, ready: ReadyCell) -> list[BlockInfo]:
        """The blocks of a prepared cell that this run computes unless they are stored: all, or those of its shard."""
        return own_blocks(ready.request.cell, ready.prepared, self.config.shard)

    def stored(self, ready: ReadyCell) -> bool:
        """Whether the store holds the whole cell, so that nothing is run."""
        return not self.config.fresh and all(self.run.store.has(block.key) for block in ready.prepared.blocks)

    def execute(self, ready: ReadyCell, progress: SampleProgress = lambda count: None) -> CellResult:
        """Run the missing blocks of a prepared cell. Cells with the same blocks, as of two suites, wait for one another."""
        with self._claimed(ready.request.cell, ready.prepared):
            return self._execute(ready, progress)

    def _claimed(self, cell: Cell, prepared: PreparedCell) -> AbstractContextManager[None]:
        """The context has the cell's files and its blocks to itself."""
        return self._claims.of((cell.name, *(block.key for block in prepared.blocks)))

    def _execute(self, ready: ReadyCell, progress: SampleProgress) -> CellResult:
        blocks, store = self.due(ready), self.run.store
        missing = [block for block in blocks if self.config.fresh or not store.has(block.key)]
        self.worker.allow(self.config.timeout)
        with self._measured(ready.request.cell):
            result = run_cell(
                ready.request,
                ready.prepared,
                self.work,
                store,
                fresh=self.config.fresh,
                shard=self.config.shard,
                progress=progress,
            )
        if missing and result.error is None and len(blocks) >= LEAST_BLOCKS and self.config.shard is None:
            try:
                pack_blocks(store, [block.key for block in blocks])
            except DamagedBlockError as error:
                self.note(f"warning: not packed: {error.found}")
        if missing:
            spent = self._watches.pop(_watched(ready.request.cell)).spent
            anew = len(missing) == len(blocks)
            self.run.note_spent(ready.request.cell, spent, anew=anew, shard=self.config.shard)
        return result

    def _measured(self, cell: Cell) -> AbstractContextManager[None]:
        """The context's time is that cell's."""
        return measured_by(self._watches.setdefault(_watched(cell), Stopwatch()))

    def cell(self, cell: Cell, progress: SampleProgress = lambda count: None) -> CellResult:
        """Prepare and execute a cell."""
        return self.finish(cell, self.prepare(cell), progress)

    def finish(
        self, cell: Cell, ready: ReadyCell | CellError, progress: SampleProgress = lambda count: None
    ) -> CellResult:
        """Execute a cell as `prepare` returned it."""
        if isinstance(ready, CellError):
            return CellResult(cell.info, (), ready)
        return self.execute(ready, progress)

    def alarms(self, cell: Cell) -> list[str]:
        """A sentence if a stored sample of the cell's row is both certified and broken, else nothing."""
        row = [other for other in self.run.plan.cells if row_key(other.info) == row_key(cell.info)]
        if not any(other.info.proves for other in row):
            return []
        results = [self.run.result(other) for other in row]
        bracketed = bracket(results, worst_case(results))
        return [f"{cell.info.title}: {bracketed.alarm}"] if bracketed is not None and bracketed.alarm else []

    def _context(self, plan: Plan, command: str | None, started: str | None) -> RunContext:
        return RunContext(
            threat_models=tuple(dict.fromkeys(str(cell.threat) for cell in plan.cells)),
            data=", ".join(dict.fromkeys(cell.info.data for cell in plan.cells)),
            versions=versions(),
            device=self.worker.device,
            seed=self.config.seed,
            command=command or shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            run_path=str(self.config.out),
            started=started or now(),
            checks=self.config.checks,
            by_hand=tuple(sorted(self.config.by_hand)),
        )


def _watched(cell: Cell) -> tuple[str, str]:
    # Cells of two suites may have the same name.
    return cell.name, cell.info.suite


def _local_worker(config: Config) -> Worker:
    """The worker of this process, which imports torch."""
    from gauntlet.bench.worker.work import LocalWorker

    return LocalWorker.of(WorkerSettings.of(config), ExampleIndex(Store(config.out)).load)


def missed(result: CellResult, expectations: tuple[Expectation, ...]) -> list[str]:
    """A sentence for every expectation of the configuration that a finished cell does not meet."""
    cell = result.cell
    n = sum(len(block.samples) for block in result.blocks)
    robust = Proportion(sum(int(block.samples.robust.sum()) for block in result.blocks), n).estimate
    clean = Proportion(sum(int(block.samples.correct.sum()) for block in result.blocks), n).estimate
    sentences = []
    for expectation in expectations:
        if not expectation.applies(cell.model, cell.defense, cell.attack, cell.threat):
            continue
        bounds: list[tuple[str, float, float | None, Callable[[float, float], bool]]] = [
            ("clean accuracy", clean, expectation.min_clean, float.__lt__),
            ("robust accuracy", robust, expectation.min_robust, float.__lt__),
            ("robust accuracy", robust, expectation.max_robust, float.__gt__),
        ]
        # Bounds on robust accuracy concern attacks only.
        for figure, value, bound, fails in bounds[:1] if cell.corrupts else bounds:
            if bound is not None and fails(value, float(bound)):
                side = "below the expected minimum" if fails is float.__lt__ else "above the expected maximum"
                sentences.append(f"{cell.title} {cell.threat}: {figure} {value:.1%} is {side} {bound:.1%} (n={n})")
    return sentences
