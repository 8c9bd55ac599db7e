"""Running an attack over a grid of its settings, with the plan, engine and store of a run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.config.schema import Config, load_config
from gauntlet.bench.planning.plan import Plan, make_plan
from gauntlet.bench.registries import ATTACKS
from gauntlet.bench.registry.plugin_files import load_plugins
from gauntlet.bench.run.engine import Engine
from gauntlet.bench.sweep.convergence import PointOutcome, verdicts
from gauntlet.bench.sweep.grid import EPS, Axis, Point, SweepError, grid, settings_text
from gauntlet.bench.sweep.report import sweep_figure, sweep_frame, sweep_markdown
from gauntlet.leaderboard.pictures.canvas import PicturesMissingError, png
from gauntlet.leaderboard.report.csv_writer import csv_text
from gauntlet.leaderboard.report.formatting import with_interval
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.atomic_files import replace_files
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.results.record import CellResult
from gauntlet.leaderboard.rows.worst_case import worst_case


@dataclass(frozen=True)
class Sweep:
    """The outcome of each finished setting, and a sentence for each cell that failed."""

    title: str
    axes: tuple[Axis, ...]
    outcomes: tuple[PointOutcome, ...]
    failures: tuple[str, ...]


def sweep_config(options: Mapping[str, Any], attack: str, axes: Sequence[Axis]) -> Config:
    """The configuration of a sweep over `axes`. The threat model needs no eps if eps is swept.

    Raises ConfigError, and SweepError for several models, defenses or threat models.
    """
    given = {**options, "attacks": (attack,)}
    eps = next((axis.values[0] for axis in axes if axis.name == EPS), None)
    if eps is not None:
        given["threat"] = tuple(text if ":" in text else f"{text}:{eps!r}" for text in options.get("threat") or ())
    config = load_config(given, folder=Path.cwd(), file=options.get("config"))
    group = config.groups[0]
    specs = tuple(model.spec for model in group.models)
    for name, values in (("threat", group.threats), ("defense", group.defenses), ("model", specs)):
        if len(values) > 1:
            raise SweepError(
                f"--{name} names {len(values)} ({', '.join(values)}), but a sweep takes one: name one {name}"
            )
    return config


def run_sweep(config: Config, attack: str, axes: Sequence[Axis], seeds: int, log: Callable[[str], None]) -> Sweep:
    """Run all combinations of the axes' values; stored results are not computed again. `log` is called with a line for each cell.

    Raises SweepError, LookupError for unknown names, and the errors of `grid`.
    """
    load_plugins(config.plugins)
    ATTACKS.get(attack.partition("(")[0].strip())
    points = grid(attack, config.groups[0].threats[0], axes)
    plan = _plan(config, points, seeds)
    engine = Engine(plan, config)
    results: dict[str, CellResult] = {}
    for cell in plan.cells:
        results[cell.name] = engine.cell(cell)
        log(_progress(cell, results[cell.name], seeds))
    outcomes, failures = [], []
    for point in points:
        members = [results[cell.name] for cell in plan.cells if _belongs_to(cell, point)]
        failures += [f"{settings_text(point)}: {one.error.kind}: {one.error.message}" for one in members if one.error]
        if all(cells.status(one) == "ok" for one in members):
            outcomes.append(_outcome(point, members))
    info = plan.cells[0].info
    threats = " to ".join(dict.fromkeys((points[0].threat, points[-1].threat)))
    title = f"{attack} on {info.model} × {info.defense}, {threats}, {info.data}"
    return Sweep(title, tuple(axes), tuple(outcomes), tuple(failures))


def _plan(config: Config, points: Sequence[Point], seeds: int) -> Plan:
    """The cells of all points and seeds, in that order."""
    group = config.groups[0]
    planned: dict[tuple[str, int], Cell] = {}
    for point in points:
        narrowed = replace(group, attacks=(point.attack,), threats=(point.threat,))
        for seed in range(config.seed, config.seed + seeds):
            made = make_plan(replace(config, groups=(narrowed,), seed=seed, expect=()))
            models = sorted({cell.info.model for cell in made.cells})
            if len(models) > 1:
                named = f"{group.models[0].spec!r} names {len(models)} ({', '.join(models)})"
                raise SweepError(f"--model {named}, but a sweep takes one: name one model")
            planned.update({(cell.name, seed): cell for cell in made.cells})
    return Plan(tuple(planned.values()))


def _belongs_to(cell: Cell, point: Point) -> bool:
    return cell.info.attack == point.attack and cell.info.threat == point.threat


def _outcome(point: Point, members: Sequence[CellResult]) -> PointOutcome:
    worst = worst_case(members)
    costs = [cells.costs(one) for one in members]
    return PointOutcome(
        point=point,
        correct=np.asarray(worst.correct),
        robust=np.asarray(worst.robust),
        by_seed=tuple(cells.robust_accuracy(one) for one in members),
        forwards=sum(one.forwards_per_sample for one in costs),
        backwards=sum(one.backwards_per_sample for one in costs),
        seconds=sum(one.seconds for one in costs),
    )


def write_sweep(folder: Path, sweep: Sweep) -> Iterator[str]:
    """Write sweep.csv, sweep.md and, with matplotlib, sweep.png into the folder; yields lines that describe the sweep."""
    outcomes, axes = sweep.outcomes, sweep.axes
    width = max((len(settings_text(one.point)) for one in outcomes), default=0)
    yield visible(sweep.title)
    for one in outcomes:
        name = f"{visible(settings_text(one.point)):<{width}}"
        passes = f"{one.forwards:.1f}/{one.backwards:.1f} passes a sample"
        yield f"{name}  robust {with_interval(one.accuracy)} % of {len(one.robust)}, {passes}"
    axis_verdicts = verdicts(outcomes, axes)
    for verdict in axis_verdicts:
        yield visible(verdict.sentence)
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    files = {
        folder / "sweep.csv": csv_text(sweep_frame(outcomes, axes)).encode(),
        folder / "sweep.md": sweep_markdown(sweep.title, outcomes, axis_verdicts, sweep.failures, command).encode(),
    }
    missing = ""
    if outcomes:
        try:
            files[folder / "sweep.png"] = png(sweep_figure(sweep.title, outcomes, axes))
        except PicturesMissingError as error:
            missing = str(error)
    replace_files(files)
    for path in files:
        yield f"written: {path}"
    if missing:
        yield f"not drawn: {folder / 'sweep.png'}: {missing}"


def _progress(cell: Cell, result: CellResult, seeds: int) -> str:
    name = visible(f"{cell.info.attack} {cell.info.threat}") + (f" seed {cell.info.seed}" if seeds > 1 else "")
    if result.error is not None:
        return f"{name}: ERROR {visible(result.error.message)}"
    stored = " (stored)" if all(block.cached for block in result.blocks) else ""
    return (
        f"{name}: robust {with_interval(cells.robust_accuracy(result))} %, {cells.costs(result).seconds:.1f} s{stored}"
    )
