"""What one cell's blocks say together: status, per-sample outcomes, costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.results.record import CellResult, Flag, Samples
from gauntlet.leaderboard.stats.proportions import Proportion

T = TypeVar("T", bound=np.generic)

Status = Literal["ok", "error", "unfinished"]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Per-sample outcomes of all blocks of a cell, arrays of length N in the order of the plan."""

    id: npt.NDArray[np.str_]
    label: npt.NDArray[np.int64]
    correct: npt.NDArray[np.bool_]
    """When clean."""
    robust: npt.NDArray[np.bool_]
    """For a randomised model: correct when clean, and most of the scoring draws are right."""
    distance: npt.NDArray[np.float64]
    wrong_share: npt.NDArray[np.float64]
    wrong_share_scored: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True)
class Costs:
    """What a cell's attack cost; passes are means over its samples, NaN where there are none."""

    seconds: float
    forwards_per_sample: float
    backwards_per_sample: float
    peak_memory_mib: float
    """The largest of the blocks'; NaN where there are none."""
    candidates_rejected: int
    disagreements: int


def status(result: CellResult) -> Status:
    """`error` where anything failed, even if blocks exist; `unfinished` where samples that the plan asks for lack."""
    if result.error is not None:
        return "error"
    n = covered(result)
    return "ok" if 0 < n >= result.expected else "unfinished"


def covered(result: CellResult) -> int:
    """Number of samples in the cell's blocks."""
    return sum(len(block.samples) for block in result.blocks)


def majority_right(wrong_share: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Whether more than half of the draws are right; a tie is no majority, and NaN is not robust."""
    return wrong_share < 0.5


def outcomes(result: CellResult) -> Outcomes:
    """The blocks' outcomes, one after the other. For a randomised model `robust` is judged on the scoring draws."""
    blocks = [block.samples for block in result.blocks]
    correct = _join([block.correct for block in blocks], np.bool_)
    scored = _join([block.wrong_share_scored for block in blocks], np.float64)
    recorded = _join([block.robust for block in blocks], np.bool_)
    return Outcomes(
        id=_join([block.id for block in blocks], np.str_),
        label=_join([block.label for block in blocks], np.int64),
        correct=correct,
        robust=correct & majority_right(scored) if result.cell.randomised else recorded,
        distance=_join([block.distance for block in blocks], np.float64),
        wrong_share=_join([block.wrong_share for block in blocks], np.float64),
        wrong_share_scored=scored,
    )


def _join(arrays: Sequence[npt.NDArray[T]], dtype: type[T]) -> npt.NDArray[T]:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)


def costs(result: CellResult) -> Costs:
    """The blocks' costs together, whether or not the cell finished."""
    n = covered(result)
    stats = [block.stats for block in result.blocks]
    return Costs(
        seconds=sum((s.seconds for s in stats), 0.0),
        forwards_per_sample=_total(result, "forwards") / n if n else math.nan,
        backwards_per_sample=_total(result, "backwards") / n if n else math.nan,
        peak_memory_mib=max((s.peak_memory_mib for s in stats), default=math.nan),
        candidates_rejected=sum(s.candidates_rejected for s in stats),
        disagreements=sum(s.disagreements for s in stats),
    )


def _total(result: CellResult, passes: Literal["forwards", "backwards"]) -> float:
    def of(samples: Samples) -> float:
        return float((samples.forwards if passes == "forwards" else samples.backwards).sum())

    return sum((of(block.samples) for block in result.blocks), 0.0)


def clean_accuracy(result: CellResult) -> Proportion:
    """Share of the cell's samples that are right when clean."""
    return Proportion.of(outcomes(result).correct)


def robust_accuracy(result: CellResult) -> Proportion:
    """Share of the cell's samples that are right when clean and stay so under its attack."""
    return Proportion.of(outcomes(result).robust)


def median_distance(result: CellResult) -> float:
    """Median measured distance of the samples that the attack broke, NaN where it broke none."""
    found = outcomes(result)
    broken = found.distance[found.correct & ~found.robust & np.isfinite(found.distance)]
    return float(np.median(broken)) if len(broken) else math.nan


def flags(result: CellResult) -> tuple[Flag, ...]:
    """The blocks' flags, each once, in order of first appearance."""
    return tuple(dict.fromkeys(flag for block in result.blocks for flag in block.flags))


def ways(result: CellResult) -> frozenset[str]:
    """In which ways the cell attacks, as its blocks say."""
    return frozenset(way for block in result.blocks for ways in block.cell.ways.values() for way in ways.split("+"))


def certified(result: CellResult) -> int | None:
    """How many samples are proven robust; None where nothing was to be proven."""
    proven = [block.samples.certified for block in result.blocks if block.samples.certified is not None]
    return sum(int(one.sum()) for one in proven) if proven else None


def precision(result: CellResult) -> str:
    """The form of the model that was attacked, as the blocks say; what was planned where there are none."""
    return ", ".join(dict.fromkeys(block.cell.precision for block in result.blocks)) or result.cell.precision


def device(result: CellResult) -> str:
    """The device that the provenance names, empty where it names none."""
    sources = [block.provenance for block in result.blocks]
    if result.error is not None:
        sources.append(result.error.provenance)
    return ", ".join(dict.fromkeys(str(source["device"]) for source in sources if "device" in source))


def newest_commit(results: Sequence[CellResult]) -> str:
    """The commit that the newest block was computed at, with `-dirty` where files differed from it; empty where none is known."""
    sources = [block.provenance for one in results for block in one.blocks]
    newest = max(sources, key=lambda source: str(source.get("time", "")), default={})
    head = newest.get("commit")
    return f"{head}{'-dirty' if newest.get('dirty') else ''}" if head else ""
