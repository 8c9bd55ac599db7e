"""The benchmark session of a pytest run: a plan, its engine, and a check for each cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.config.schema import ConfigError, load_config
from gauntlet.bench.environment.device import choose_device
from gauntlet.bench.executors.example_index import ExampleIndex
from gauntlet.bench.gate.choose_gate import Gate
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.run.engine import Engine, missed
from gauntlet.bench.worker.seam import Worker, WorkerSettings
from gauntlet.leaderboard.report.notes import phrased
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.results.record import CellError, CellResult
from gauntlet.leaderboard.results.store import Store
from gauntlet.leaderboard.rows.corruptions import accuracy

if TYPE_CHECKING:
    from gauntlet.bench.cluster.worker_pool import WorkerPool
    from gauntlet.bench.gate.early_run import EarlyGate
    from gauntlet.bench.run.engine import ReadyCell
    from gauntlet.bench.session.shared_cells import SharedCells


class SessionError(ValueError):
    """An invalid option or configuration."""


class Session:
    """The benchmark of one pytest run. Raises SessionError for invalid options or configuration."""

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        folder: Path,
        command: str,
        started: str | None = None,
        workers: int = 1,
    ) -> None:
        try:
            self.config = load_config(options, folder=folder, file=options.get("config"))
            self.plan = make_plan(self.config)
            if self.config.cluster is None:
                choose_device(self.config.device)
        except (ValueError, LookupError) as error:
            raise SessionError(error.args[0] if error.args else str(error)) from error
        self._threads = torch.get_num_threads()
        if workers > 1:
            # Otherwise every worker would use all cores, and the workers would slow each other down.
            torch.set_num_threads(max(1, self._threads // workers))
        self._command, self._started = command, started
        self._open = ExitStack()
        self._engine: Engine | None = None
        self._shared: SharedCells[tuple[CellResult, list[str]]] | None = None
        self._notes: list[str] = []
        self._gate: Gate | None = None

    @property
    def engine(self) -> Engine:
        """The engine, made when the first cell runs, so that collecting tests writes nothing."""
        if self._engine is None:
            self._engine = Engine(
                self.plan,
                self.config,
                worker=self._workers(),
                command=self._command,
                started=self._started,
                note=self._notes.append,
            )
        return self._engine

    def _workers(self) -> Worker | None:
        """The workers of the cluster that an option names; None for this process. Ends the run where there is no such cluster."""
        if self.config.cluster is None:
            return None
        from gauntlet.bench.cluster.ray_cluster import ray_workers

        examples = ExampleIndex(Store(self.config.out)).load
        try:
            return self._open.enter_context(ray_workers(self.config.cluster, WorkerSettings.of(self.config), examples))
        except ConfigError as error:
            pytest.exit(f"gauntlet: {visible(phrased(str(error), 'pytest'))}", returncode=pytest.ExitCode.USAGE_ERROR)

    def title(self, cell: Any) -> str:
        """The id of a test, with control characters escaped."""
        return visible(self.plan.title(cell))

    def close(self) -> None:
        """End the workers of a cluster, and restore the number of threads of this process."""
        if self._shared is not None:
            self._shared.close()
        self._open.close()
        torch.set_num_threads(self._threads)

    @property
    def cells(self) -> Sequence[Cell]:
        """The cells to run: all cells of the plan, or those that a gate with early stopping judges."""
        if self._gate is None or not self._gate.early:
            return self.plan.cells
        from gauntlet.bench.gate.early_run import gated

        return gated(self.plan.cells)

    def hold(self, gate: Gate) -> Gate:
        """Hold each cell against the gate once it is prepared, and attack no more than an early one needs.

        Returns the gate with what the plan has that differs from the baseline's policy.
        """
        from gauntlet.bench.gate.plan_check import hold_plan
        from gauntlet.bench.worker.installed_versions import installed_versions

        self._gate = gate
        return hold_plan(gate, self.config, self.plan, installed_versions())

    @cached_property
    def _early(self) -> EarlyGate:
        """The opened gate; it is opened when the first cell runs, so that collecting tests writes nothing."""
        from gauntlet.bench.gate.early_run import open_gate

        assert self._gate is not None
        return open_gate(self._gate.file, self._gate.baseline, self._gate.policy, self.config)

    def check(self, cell: Cell, request: pytest.FixtureRequest) -> None:
        """Run a cell, timed by pytest-benchmark unless its result is stored; fail the test for errors and missed bounds.

        On a cluster all cells of the selected tests run side by side, and the recorded seconds stand for their time.
        """
        if self.config.cluster is not None and (self._gate is None or not self._gate.early):
            self._check_shared(cell, request)
            return
        prepared = self.engine.prepare(cell)
        if found := self._refused(prepared):
            pytest.fail(visible(found), pytrace=False)
        if self._gate is not None and self._gate.early:
            self._check_early(cell, prepared, request)
            return
        if isinstance(prepared, CellError):
            result = CellResult(cell.info, (), prepared)
        elif self.engine.stored(prepared):
            result = self.engine.execute(prepared)
        else:
            benchmark = request.getfixturevalue("benchmark")
            benchmark.group = f"{cell.threat}"
            result = benchmark.pedantic(self.engine.execute, args=(prepared,), rounds=1, iterations=1)
            benchmark.extra_info.update(_figures(result))
        self._report(cell, result.error, _figures(result), request)
        if sentences := [*missed(result, self.config.expect), *self.engine.alarms(cell)]:
            pytest.fail("\n".join(map(visible, sentences)), pytrace=False)

    def _refused(self, prepared: ReadyCell | CellError) -> str:
        """How a prepared cell differs from the gate's policy; empty if it does not."""
        if self._gate is None:
            return ""
        from gauntlet.bench.gate.plan_check import hold_prepared, refusal

        return refusal(hold_prepared(self._gate, self.config, prepared))

    def _check_shared(self, cell: Cell, request: pytest.FixtureRequest) -> None:
        if self._shared is None:
            from gauntlet.bench.session.shared_cells import SharedCells

            chosen = [item.callspec.params.get("gauntlet_cell") for item in _parametrized(request.session.items)]
            pool = cast("WorkerPool", self.engine.worker)
            self._shared = SharedCells([one for one in self.cells if one in chosen], self._finish, pool)
        try:
            result, sentences = self._shared.result(cell)
        except SessionError as error:
            pytest.fail(visible(str(error)), pytrace=False)
        self._report(cell, result.error, _figures(result), request)
        if sentences:
            pytest.fail("\n".join(map(visible, sentences)), pytrace=False)

    def _finish(self, cell: Cell) -> tuple[CellResult, list[str]]:
        """The result of a cell, and a sentence for each bound that it misses. Raises SessionError where the gate refuses it."""
        prepared = self.engine.prepare(cell)
        if found := self._refused(prepared):
            raise SessionError(found)
        result = self.engine.finish(cell, prepared)
        return result, [*missed(result, self.config.expect), *self.engine.alarms(cell)]

    def _check_early(self, cell: Cell, ready: ReadyCell | CellError, request: pytest.FixtureRequest) -> None:
        from gauntlet.bench.gate.artifact import ArtifactError
        from gauntlet.bench.gate.early_run import early_cell
        from gauntlet.leaderboard.gate.trace import Trace

        try:
            gate = self._early
        except ArtifactError as problem:
            pytest.fail(visible(str(problem)), pytrace=False)
        benchmark = request.getfixturevalue("benchmark")
        benchmark.group = f"{cell.threat}, as far as the gate needs"
        outcome = benchmark.pedantic(early_cell, args=(self.engine, cell, gate, None, ready), rounds=1, iterations=1)
        if isinstance(outcome, Trace):
            error, figures = None, {"n": len(outcome.order), "of": outcome.n, "passes": outcome.computed}
        else:
            error, figures = outcome.error, _figures(outcome)
        benchmark.extra_info.update(figures)
        self._report(cell, error, figures, request)

    def _report(
        self, cell: Cell, error: CellError | None, figures: Mapping[str, Any], request: pytest.FixtureRequest
    ) -> None:
        """Add the figures to the report of the test, and fail the test if the cell failed."""
        notes = [("gauntlet_note", phrased(note, "pytest")) for note in self._notes]
        self._notes.clear()
        for name, value in (("gauntlet_run", str(self.engine.run.folder)), *notes, *figures.items()):
            request.node.user_properties.append((name, value))
        if error is not None:
            pytest.fail(visible(phrased(f"{cell.info.title}: {error.kind}: {error.message}", "pytest")), pytrace=False)


def _parametrized(items: Sequence[pytest.Item]) -> list[Any]:
    return [item for item in items if hasattr(item, "callspec")]


def _figures(result: CellResult) -> dict[str, Any]:
    """The figures that are reported beside the time, without those that are NaN, which JSON does not have."""
    n = cells.covered(result)
    cost = cells.costs(result)
    corrupted = result.cell.corrupts
    share = (accuracy if corrupted else cells.robust_accuracy)(result).estimate if n else math.nan
    figures: dict[str, Any] = {
        "n": n,
        "corruption_accuracy" if corrupted else "robust_accuracy": share,
        "forwards_per_sample": cost.forwards_per_sample,
        "backwards_per_sample": cost.backwards_per_sample,
        "peak_memory_mib": cost.peak_memory_mib,
        "attack_seconds": cost.seconds,
        "cached": all(block.cached for block in result.blocks) and n > 0,
        "device": result.blocks[0].provenance.get("device", "") if result.blocks else "",
        "flags": ", ".join(flag.name for flag in cells.flags(result)),
    }
    return {name: value for name, value in figures.items() if not (isinstance(value, float) and math.isnan(value))}
