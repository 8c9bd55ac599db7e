"""Summary of a cell over its blocks: status, per-sample outcomes, costs, flags, and where it was computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.results.record import CellResult, Flag, Record, Samples
from gauntlet.leaderboard.stats.proportions import Proportion

T = TypeVar("T", bound=np.generic)

Status = Literal["ok", "error", "unfinished"]


@dataclass(frozen=True, eq=False)
class SampleOutcomes:
    """Per-sample outcomes over all blocks of a cell, arrays of length N in the order of the plan."""

    id: npt.NDArray[np.str_]
    label: npt.NDArray[np.int64]
    correct: npt.NDArray[np.bool_]
    """Classified correctly when clean."""
    robust: npt.NDArray[np.bool_]
    """For a randomised model: correct when clean, and correct in most of the scoring draws."""
    distance: npt.NDArray[np.float64]
    wrong_share: npt.NDArray[np.float64]
    wrong_share_scored: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True)
class Costs:
    """Costs of a cell's attack; passes are means over its samples, NaN if there are none."""

    seconds: float
    forwards_per_sample: float
    backwards_per_sample: float
    peak_memory_mib: float
    """The maximum over the blocks; NaN if there are none."""
    candidates_rejected: int
    disagreements: int


def status(result: CellResult) -> Status:
    """`error` if anything failed, even if blocks exist; `unfinished` if the blocks cover fewer samples than planned."""
    if result.error is not None:
        return "error"
    n = covered(result)
    return "ok" if 0 < n >= result.expected else "unfinished"


def covered(result: CellResult) -> int:
    """Number of samples in the cell's blocks."""
    return sum(len(block.samples) for block in result.blocks)


def majority_right(wrong_share: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Whether more than half of the draws are correct; a tie is no majority, and NaN counts as not robust."""
    return wrong_share < 0.5


def outcomes(result: CellResult) -> SampleOutcomes:
    """The outcomes of all blocks, concatenated. For a randomised model `robust` is decided by the scoring draws."""
    blocks = [block.samples for block in result.blocks]
    correct = _join([block.correct for block in blocks], np.bool_)
    scored = _join([block.wrong_share_scored for block in blocks], np.float64)
    recorded = _join([block.robust for block in blocks], np.bool_)
    return SampleOutcomes(
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
    """The costs of all blocks together, whether or not the cell finished."""
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
    def total(samples: Samples) -> float:
        return float((samples.forwards if passes == "forwards" else samples.backwards).sum())

    return sum((total(block.samples) for block in result.blocks), 0.0)


def clean_accuracy(result: CellResult) -> Proportion:
    """Share of the cell's samples that are classified correctly when clean."""
    return Proportion.of(outcomes(result).correct)


def robust_accuracy(result: CellResult) -> Proportion:
    """Share of the cell's samples that are classified correctly when clean and under its attack."""
    return Proportion.of(outcomes(result).robust)


def median_distance(result: CellResult) -> float:
    """Median measured distance over the samples that the attack broke; NaN if it broke none."""
    samples = outcomes(result)
    distances = samples.distance[samples.correct & ~samples.robust & np.isfinite(samples.distance)]
    return float(np.median(distances)) if len(distances) else math.nan


def flags(result: CellResult) -> tuple[Flag, ...]:
    """The flags of all blocks, each once, in order of first appearance."""
    return tuple(dict.fromkeys(flag for block in result.blocks for flag in block.flags))


def techniques(result: CellResult) -> frozenset[str]:
    """The attack techniques of all stages; a stage that combines several, such as `bpda+eot`, counts for each."""
    combined = (technique for block in result.blocks for technique in block.cell.techniques.values())
    return frozenset(name for technique in combined for name in technique.split("+"))


def stage_techniques(result: CellResult) -> dict[str, str]:
    """The technique of each stage, in the order of the stages."""
    return {stage: technique for block in result.blocks for stage, technique in block.cell.techniques.items()}


def masked(result: CellResult) -> int | None:
    """Number of samples that the attack left standing with masked gradients; None if a block does not record it."""
    counts = [block.stats.masked for block in result.blocks if block.stats.masked is not None]
    return sum(counts) if len(counts) == len(result.blocks) else None


def certified(result: CellResult) -> int | None:
    """Number of samples that are proven robust; None for cells that are no certificates."""
    blocks = [block.samples.certified for block in result.blocks if block.samples.certified is not None]
    return sum(int(bits.sum()) for bits in blocks) if blocks else None


def nothing_replayed(result: CellResult) -> bool:
    """Whether the cell is a finished replay that had no stored example to try."""
    return result.cell.replays and status(result) == "ok" and _total(result, "forwards") == 0


def precision(result: CellResult) -> str:
    """The form of the model that was attacked, from the blocks; the planned form if there are none."""
    return ", ".join(dict.fromkeys(block.cell.precision for block in result.blocks)) or result.cell.precision


def device(result: CellResult) -> str:
    """The device in the provenance, empty if none is recorded."""
    sources = [block.provenance for block in result.blocks]
    if result.error is not None:
        sources.append(result.error.provenance)
    return ", ".join(dict.fromkeys(str(source["device"]) for source in sources if "device" in source))


def report_as(result: CellResult) -> str:
    """The name under which the attack is to be reported, from the provenance; empty if none is recorded."""
    names = (str(block.provenance.get("report_as") or "") for block in result.blocks)
    return ", ".join(dict.fromkeys(filter(None, names)))


def newest_commit(results: Sequence[CellResult]) -> str:
    """The commit of the newest block, with `-dirty` if files differed from it; empty if none is recorded."""
    blocks = (block for result in results for block in result.blocks)
    newest = max(blocks, key=lambda block: str(block.provenance.get("time", "")), default=None)
    return commit_of(newest) if newest is not None else ""


def commit_of(block: Record) -> str:
    """The commit of a block, with `-dirty` if files differed from it; empty if none is recorded."""
    commit = block.provenance.get("commit")
    return f"{commit}{'-dirty' if block.provenance.get('dirty') else ''}" if commit else ""
