"""The number of samples that each attack of a row broke, and that no other attack of the row broke."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CellResult
from gauntlet.leaderboard.rows.worst_case import WorstCase


@dataclass(frozen=True)
class BrokenBy:
    """Numbers of samples that one attack broke, over all its seeds."""

    attack: str
    broke: int
    """Samples that are correct when clean and that the attack broke."""
    alone: int
    """Those of them that no other attack of the row broke."""
    stages: tuple[tuple[str, int], ...]
    """For a cascade, the number that each stage broke, in descending order. A stage attacks only samples that the stages
    before it left standing."""


def broken_by(worst: WorstCase, results: Sequence[CellResult]) -> tuple[BrokenBy, ...]:
    """The numbers for each attack of a row, on the samples of its worst case. Certificates and corruptions are not attacks.

    For a randomised model each attack is judged on its own scoring draws, so that the numbers need not add up to the row's.
    """
    labels: dict[str, list[CellResult]] = {}
    for result in results:
        if result.cell.adversarial:
            labels.setdefault(result.cell.attack, []).append(result)
    ids = [str(name) for name in worst.id]
    broken = {label: _broken(members, ids) for label, members in labels.items()}
    times = np.sum([bits for bits, _ in broken.values()], axis=0) if broken else np.zeros(len(ids))
    return tuple(
        BrokenBy(label, int(bits.sum()), int((bits & (times == 1)).sum()), stages)
        for label, (bits, stages) in broken.items()
    )


def _broken(
    seeds: Sequence[CellResult], ids: Sequence[str]
) -> tuple[npt.NDArray[np.bool_], tuple[tuple[str, int], ...]]:
    """Whether an attack broke each of the samples, bool (N,), and the number of them that each of its stages broke."""
    stage_of: dict[str, str] = {}
    for result in seeds:
        samples = cells.outcomes(result)
        stages = [name for block in result.blocks for name in block.samples.stage or [""] * len(block.samples)]
        for name, broken, stage in zip(samples.id.tolist(), samples.correct & ~samples.robust, stages, strict=True):
            if broken:
                stage_of.setdefault(name, stage)
    bits = np.array([name in stage_of for name in ids], dtype=np.bool_)
    stages = [stage_of[name] for name in ids if stage_of.get(name)]
    counts = sorted(((stage, stages.count(stage)) for stage in dict.fromkeys(stages)), key=lambda entry: -entry[1])
    return bits, tuple(counts)
