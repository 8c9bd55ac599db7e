"""The page of a row: attacks and their stages, flags with their evidence, classes, costs and provenance."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.report import formatting
from gauntlet.leaderboard.report.cell_text import attack_settings, describe_cell
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.results.sample_set import numbered
from gauntlet.leaderboard.results.spent import PARTS, Spent
from gauntlet.leaderboard.results.summary import CellSummary
from gauntlet.leaderboard.rows.evidence import describe_evidence, describe_lifted
from gauntlet.leaderboard.rows.per_class import ClassAccuracy, per_class
from gauntlet.leaderboard.rows.row import LeaderboardRow

MOST_CLASSES = 20
"""Number of classes that are listed, those with the lowest robust accuracy."""


@dataclass(frozen=True)
class AttackLine:
    """A cell of the row."""

    label: str
    seed: int
    techniques: str
    outcome: str
    """Robust accuracy with its interval, or what the cell gave in its place."""
    broken: int
    alone: int
    """Number of samples that no other attack of the row broke."""
    distance: str
    passes: str
    seconds: str
    status: str
    settings: str
    report_as: str


@dataclass(frozen=True)
class StageLine:
    """A stage of a cascade."""

    attack: str
    label: str
    technique: str
    faced: str
    broken: int
    seconds: str


@dataclass(frozen=True)
class FlagView:
    """A flag of the row in words."""

    name: str
    state: str
    """`block`, `warn` or `answered`."""
    message: str
    evidence: str
    lifted: str
    samples: str


def attack_lines(cells: Sequence[CellSummary]) -> list[AttackLine]:
    """A line for each cell that is no corruption."""
    shown = [cell for cell in cells if not cell.cell.corrupts]
    alone = _broken_alone(shown)
    lines = []
    for cell, count in zip(shown, alone, strict=True):
        outcome = formatting.with_interval(cell.robust_accuracy)
        if cell.cell.proves or cell.nothing_replayed or not len(cell):
            outcome = describe_cell(cell) if len(cell) else formatting.NOTHING
        if cell.error is not None:
            outcome = f"{cell.error.kind}: {cell.error.message}"
        costs = cell.costs
        lines.append(
            AttackLine(
                label=cell.cell.attack,
                seed=cell.cell.seed,
                techniques=", ".join(sorted(cell.techniques)) or cell.cell.attack_kind,
                outcome=outcome,
                broken=int(cell.broken.sum()),
                alone=count,
                distance=f"{cell.median_distance:.4g}" if math.isfinite(cell.median_distance) else formatting.NOTHING,
                passes=f"{formatting.number(costs.forwards_per_sample)} / {formatting.number(costs.backwards_per_sample)}",
                seconds=formatting.number(costs.seconds),
                status=cell.status,
                settings=attack_settings(cell.cell.attack_spec),
                report_as=cell.report_as,
            )
        )
    return lines


def _broken_alone(cells: Sequence[CellSummary]) -> list[int]:
    """For each cell the number of samples that it broke and no other attack did; seeds of an attack are one attack."""
    if not cells:
        return []
    count, numbers = numbered([cell.samples for cell in cells])
    broken: dict[str, npt.NDArray[np.bool_]] = {}
    for cell, number in zip(cells, numbers, strict=True):
        broken.setdefault(cell.cell.attack, np.zeros(count, np.bool_))[number[cell.broken]] = True
    times = sum(broken.values(), np.zeros(count, np.int64))
    return [int((times[number[cell.broken]] == 1).sum()) for cell, number in zip(cells, numbers, strict=True)]


def stage_lines(cells: Sequence[CellSummary]) -> list[StageLine]:
    """The stages of all cascades, in order, each with the samples that faced it and those that it broke."""
    lines = []
    for cell in cells:
        if cell.stage is None:
            continue
        seconds = cell.spent.stages if cell.spent is not None else {}
        for label, technique in cell.stage_techniques.items():
            if not label:
                continue
            broke = cell.stage.where(lambda value, label=label: value == label)  # type: ignore[misc]
            faced = cell.faced.where(lambda value, label=label: label in value.split()) if cell.faced else None  # type: ignore[misc]
            lines.append(
                StageLine(
                    attack=cell.cell.attack,
                    label=label,
                    technique=technique,
                    faced=str(int(faced.sum())) if faced is not None else formatting.NOTHING,
                    broken=int(broke.sum()),
                    seconds=formatting.number(seconds.get(label, math.nan)),
                )
            )
    return lines


def flag_views(row: LeaderboardRow) -> list[FlagView]:
    """The flags of a row, those that block its rank first."""
    order = {"block": 0, "warn": 1, "answered": 2}
    return sorted(map(_flag_view, row.flags), key=lambda flag: order[flag.state])


def _flag_view(flag: Flag) -> FlagView:
    figures = ", ".join(f"{name} {value:.4g}" for name, value in flag.evidence)
    return FlagView(
        name=flag.name,
        state="answered" if flag.lifted_by else flag.severity,
        message=flag.message if flag.message.endswith((".", "!", "?")) else f"{flag.message}.",
        evidence=describe_evidence(flag) or figures,
        lifted=describe_lifted(flag) if flag.lifted_by else "",
        samples=", ".join(flag.samples[:5]),
    )


def classes(row: LeaderboardRow) -> list[ClassAccuracy]:
    """The classes with the lowest robust accuracy, lowest first."""
    return sorted(per_class(row.worst_case, row.class_names), key=lambda one: one.robust.estimate)[:MOST_CLASSES]


def costs(row: LeaderboardRow, cells: Sequence[CellSummary]) -> list[tuple[str, str]]:
    """Names and figures of what the row cost."""
    spent = sum((cell.spent for cell in cells if cell.spent is not None), Spent())
    parts = [(f"seconds, {part}", f"{spent.seconds[part]:.2f}") for part in PARTS if spent.seconds.get(part, 0) > 0]
    passes = f"{formatting.number(row.forwards_per_sample)} / {formatting.number(row.backwards_per_sample)}"
    return [
        ("seconds of all attacks", formatting.number(row.seconds)),
        ("forward / backward passes a sample", passes),
        ("peak memory, MiB", formatting.number(row.peak_memory_mib, 0)),
        *parts,
    ]


def provenance(row: LeaderboardRow, cells: Sequence[CellSummary]) -> list[tuple[str, str]]:
    """Names and values of where the figures come from; without those that are not recorded."""
    blocks = [block for cell in cells for block in cell.blocks]
    times = sorted({re.sub(r"\.\d+", "", block.time) for block in blocks if block.time})
    span = "" if not times else times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"
    data = dict.fromkeys(block.data for block in blocks if block.data)
    facts = [
        ("model", row.model),
        ("defense", row.defense),
        ("threat model", row.threat),
        ("data", f"{row.data}, {formatting.counted(row.robust.n, 'sample')}"),
        ("suite", row.suite),
        ("seeds", " ".join(map(str, row.seeds))),
        ("weights (sha256)", _unique(cell.weights for cell in cells)),
        ("images and labels", _blocks(list(data))),
        ("form of the model", _unique(cell.precision for cell in cells)),
        ("device", _unique(cell.device for cell in cells)),
        ("commit", _unique(block.commit for block in blocks)),
        ("computed", span),
        ("stored blocks", _blocks([block.key for block in blocks])),
    ]
    return [(name, value) for name, value in facts if value]


def _blocks(digests: Sequence[str]) -> str:
    if not digests:
        return ""
    return f"{formatting.counted(len(digests), 'block')}, {'the first ' if len(digests) > 1 else ''}{digests[0][:16]}"


def _unique(values: object) -> str:
    return ", ".join(dict.fromkeys(filter(None, values)))  # type: ignore[call-overload,no-any-return]
