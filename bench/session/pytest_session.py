"""What the pytest plugin drives: a plan, its engine, and one check a cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.config.schema import load_config
from gauntlet.bench.environment.device import choose_device
from gauntlet.bench.gate.artifact import ArtifactError
from gauntlet.bench.gate.choose_gate import Gate
from gauntlet.bench.gate.early_run import EarlyGate, early_cell, gated, open_gate, refuse_bounds
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.run.engine import Engine, missed
from gauntlet.leaderboard.gate.trace import Trace
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.results.record import CellError, CellResult
from gauntlet.leaderboard.rows.corruptions import accuracy


class SessionError(ValueError):
    """Options or configuration are wrong."""


class Session:
    """The benchmark of one pytest run. Raises SessionError where options or configuration are wrong."""

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
            choose_device(self.config.device)
        except (ValueError, LookupError) as error:
            raise SessionError(error.args[0] if error.args else str(error)) from error
        self._threads = torch.get_num_threads()
        if workers > 1:
            # Workers that each take every core slow one another down.
            torch.set_num_threads(max(1, self._threads // workers))
        self._command, self._started = command, started
        self._engine: Engine | None = None
        self._gate: Gate | None = None

    @property
    def engine(self) -> Engine:
        """Made with the first cell that is run, so that collecting tests writes nothing."""
        if self._engine is None:
            self._engine = Engine(self.plan, self.config, command=self._command, started=self._started)
        return self._engine

    def title(self, cell: Any) -> str:
        """The test's id, in which every character shows."""
        return visible(self.plan.title(cell))

    def close(self) -> None:
        """Undo what the session changed in this process."""
        torch.set_num_threads(self._threads)

    @property
    def cells(self) -> Sequence[Cell]:
        """What is run: all of the plan, or what a gate that stops early judges."""
        return self.plan.cells if self._gate is None else gated(self.plan.cells)

    def stop_early(self, gate: Gate) -> None:
        """Attack no more samples than the gate's verdicts need. Raises SessionError where something needs them all."""
        try:
            refuse_bounds(gate.policy, self.config)
        except ValueError as error:
            raise SessionError(str(error)) from error
        self._gate = gate

    @cached_property
    def _early(self) -> EarlyGate:
        """Opened with the first cell that is run, so that collecting tests writes nothing."""
        assert self._gate is not None
        return open_gate(self._gate.file, self._gate.baseline, self._gate.policy, self.config)

    def check(self, cell: Cell, request: pytest.FixtureRequest) -> None:
        """Run a cell, timed by pytest-benchmark unless the store answers it; fail the test on errors and missed bounds."""
        if self._gate is not None:
            self._check_early(cell, request)
            return
        prepared = self.engine.prepare(cell)
        if isinstance(prepared, CellError):
            result = CellResult(cell.info, (), prepared)
        elif self.engine.stored(prepared):
            result = self.engine.execute(prepared)
        else:
            benchmark = request.getfixturevalue("benchmark")
            benchmark.group = f"{cell.threat}"
            result = benchmark.pedantic(self.engine.execute, args=(prepared,), rounds=1, iterations=1)
            benchmark.extra_info.update(_extra(result))
        self._told(cell, result.error, _extra(result), request)
        if sentences := [*missed(result, self.config.expect), *self.engine.alarms(cell)]:
            pytest.fail("\n".join(map(visible, sentences)), pytrace=False)

    def _check_early(self, cell: Cell, request: pytest.FixtureRequest) -> None:
        try:
            gate = self._early
        except ArtifactError as problem:
            pytest.fail(visible(str(problem)), pytrace=False)
        benchmark = request.getfixturevalue("benchmark")
        benchmark.group = f"{cell.threat}, as far as the gate needs"
        found = benchmark.pedantic(early_cell, args=(self.engine, cell, gate), rounds=1, iterations=1)
        if isinstance(found, Trace):
            error, extra = None, {"n": len(found.order), "of": found.n, "passes": found.computed}
        else:
            error, extra = found.error, _extra(found)
        benchmark.extra_info.update(extra)
        self._told(cell, error, extra, request)

    def _told(
        self, cell: Cell, error: CellError | None, extra: Mapping[str, Any], request: pytest.FixtureRequest
    ) -> None:
        """Say what was run in the test's report, and fail the test where the cell failed."""
        for name, value in (("gauntlet_run", str(self.engine.run.folder)), *extra.items()):
            request.node.user_properties.append((name, value))
        if error is not None:
            pytest.fail(visible(f"{cell.info.title}: {error.kind}: {error.message}"), pytrace=False)


def _extra(result: CellResult) -> dict[str, Any]:
    """What is told beside the time; figures that are not there are left out, since JSON has no NaN."""
    n = cells.covered(result)
    cost = cells.costs(result)
    corrupted = result.cell.corrupts
    share = (accuracy if corrupted else cells.robust_accuracy)(result).estimate if n else math.nan
    found: dict[str, Any] = {
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
    return {name: value for name, value in found.items() if not (isinstance(value, float) and math.isnan(value))}
