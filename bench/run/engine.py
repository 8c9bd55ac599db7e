"""The local engine: walk a plan, run what the store does not hold, write the leaderboard."""

from __future__ import annotations

import fnmatch
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from gauntlet.bench.config.schema import Config, ConfigError, Expectation
from gauntlet.bench.environment.clock import now
from gauntlet.bench.environment.device import choose_device
from gauntlet.bench.environment.provenance import device_name, versions
from gauntlet.bench.executors.native import Settings
from gauntlet.bench.planning.plan import Cell, Plan
from gauntlet.bench.prepare.prepare import Prepared, Workbench
from gauntlet.bench.run.cell_runner import Progress, cell_error, run_cell
from gauntlet.bench.run.run_folder import Run, start_run
from gauntlet.leaderboard.report.leaderboard_files import WrittenFiles, write_leaderboard_files
from gauntlet.leaderboard.report.markdown_writer import RunContext
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.record import CORRUPTION, CellError, CellResult
from gauntlet.leaderboard.results.store import Store
from gauntlet.leaderboard.rows.bracket import CERTIFICATE, bracket
from gauntlet.leaderboard.rows.worst_case import row_key, worst_case
from gauntlet.leaderboard.stats.proportions import Proportion


class Engine:
    """One run on one device. Cells may be run in any order, by several processes on the same folder."""

    def __init__(
        self,
        plan: Plan,
        config: Config,
        *,
        command: str | None = None,
        started: str | None = None,
        dry: bool = False,
    ) -> None:
        """`dry`: only look, write nothing. Raises ConfigError for a device or precision that is not there, StoreError."""
        self.config = config
        self.settings = Settings(
            choose_device(config.device), config.batch_size, config.fresh, config.keep_adversarials
        )
        if config.precision == "float16" and self.settings.device.type != "cuda":
            raise ConfigError(
                f"precision='float16' is for CUDA, but the device is {self.settings.device}: use auto, bfloat16 or float32"
            )
        self.workbench = Workbench(self.settings.device, config.precision, config.checks, Store(config.out))
        self.dry = dry
        self._noted: set[str] = set()
        context = self._context(plan, command, started)
        run = Run(config.out, config.out, plan, context, config.plugins)
        self.run = run if dry else start_run(config.out, plan, context, config.plugins)

    def begin(self) -> None:
        """From looking on to running. Where all is about one model on one data set, these are loaded first.

        What is wrong with them is then wrong with everything: raises ValueError or LookupError, and nothing is written. Of
        several models one that is wrong is an error of its own cells.
        """
        cells = self.run.plan.cells
        if len({(cell.model, cell.data) for cell in cells}) == 1:
            try:
                self.workbench.prepare(cells[0])
            except FileNotFoundError as error:
                raise ValueError(str(error)) from error
            except (ValueError, LookupError):
                raise
            except Exception:  # noqa: S110  # whatever else a user's model raises, its cells report, with the traceback
                pass
        self.run = start_run(self.run.root, self.run.plan, self.run.context, self.run.plugins)
        self.dry = False

    def prepare(self, cell: Cell) -> Prepared | CellError:
        """Load and key a cell; a failure (the model does not build, the data are wrong) is stored as its error."""
        try:
            prepared = self.workbench.prepare(cell)
        except StoreError:
            raise
        except Exception as exception:
            error = cell_error(cell, exception, self.settings.device)
            if not self.dry:
                self.run.store.write_error(cell.name, error)
            return error
        if not self.dry:
            self.run.note_keys(cell, [(block.key, len(block.indices)) for block in prepared.blocks])
            self._note_published(cell)
        return prepared

    def _note_published(self, cell: Cell) -> None:
        """What the model's card and the configuration say that others state of it; once for each model."""
        name = cell.info.model
        if name in self._noted:
            return
        self._noted.add(name)
        card = self.workbench.model(cell.model).card
        stated = [one for pattern, one in self.config.published if fnmatch.fnmatchcase(name, pattern)]
        if stated or (card is not None and card.published):
            self.run.note_published(name, [*stated, *(card.published if card is not None else ())])

    def stored(self, prepared: Prepared) -> bool:
        """Whether the store answers the whole cell, so that nothing is run."""
        return not self.config.fresh and all(self.run.store.has(block.key) for block in prepared.blocks)

    def execute(self, prepared: Prepared, progress: Progress | None = None) -> CellResult:
        """Run what is missing of a prepared cell."""
        return run_cell(prepared, self.run.store, self.settings, progress)

    def cell(self, cell: Cell, progress: Progress | None = None) -> CellResult:
        """Prepare and execute."""
        prepared = self.prepare(cell)
        if isinstance(prepared, CellError):
            return CellResult(cell.info, (), prepared)
        return self.execute(prepared, progress)

    def alarms(self, cell: Cell) -> list[str]:
        """A sentence where the store holds a sample of the cell's row that is both certified and broken."""
        row = [one for one in self.run.plan.cells if row_key(one.info) == row_key(cell.info)]
        if not any(one.info.attack_kind == CERTIFICATE for one in row):
            return []
        results = [self.run.result(one) for one in row]
        found = bracket(results, worst_case(results))
        return [f"{cell.info.title}: {found.alarm}"] if found is not None and found.alarm else []

    def _context(self, plan: Plan, command: str | None, started: str | None) -> RunContext:
        return RunContext(
            threat_models=tuple(dict.fromkeys(str(cell.threat) for cell in plan.cells)),
            data=", ".join(dict.fromkeys(cell.info.data for cell in plan.cells)),
            versions=versions(),
            device=device_name(self.settings.device),
            seed=self.config.seed,
            command=command or shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            run_path=str(self.config.out),
            started=started or now(),
        )


def write_leaderboard(run: Run) -> tuple[WrittenFiles, list[CellResult]]:
    """Compute the leaderboard from the store and write its files into the results folder."""
    results = run.results()
    return write_leaderboard_files(run.root, results, run.context, run.published()), results


def missed(result: CellResult, expectations: tuple[Expectation, ...]) -> list[str]:
    """A sentence for every expectation of the configuration that a finished cell does not meet."""
    cell = result.cell
    n = sum(len(block.samples) for block in result.blocks)
    robust = Proportion(sum(int(block.samples.robust.sum()) for block in result.blocks), n).estimate
    clean = Proportion(sum(int(block.samples.correct.sum()) for block in result.blocks), n).estimate
    sentences = []
    for one in expectations:
        if not one.applies(cell.model, cell.defense, cell.attack, cell.threat):
            continue
        bounds: list[tuple[str, float, float | None, Callable[[float, float], bool]]] = [
            ("clean accuracy", clean, one.min_clean, float.__lt__),
            ("robust accuracy", robust, one.min_robust, float.__lt__),
            ("robust accuracy", robust, one.max_robust, float.__gt__),
        ]
        # Robust bounds are about adversaries.
        for what, value, bound, fails in bounds[:1] if cell.attack_kind == CORRUPTION else bounds:
            if bound is not None and fails(value, float(bound)):
                side = "below the expected minimum" if fails is float.__lt__ else "above the expected maximum"
                sentences.append(f"{cell.title} {cell.threat}: {what} {value:.1%} is {side} {bound:.1%} (n={n})")
    return sentences
