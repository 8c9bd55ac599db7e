"""Which attack of a row broke what, and what it alone broke."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CellResult
from gauntlet.leaderboard.rows.worst_case import WorstCase


@dataclass(frozen=True)
class Breaker:
    """What one attack did to a row (all its seeds together)."""

    attack: str
    broke: int
    """Samples that are right when clean and that it broke."""
    alone: int
    """Those of them that no other attack of the row broke."""
    stages: tuple[tuple[str, int], ...]
    """Of a cascade, how many each stage broke, most first. A stage faces only what those before it left."""


def breakers(worst: WorstCase, results: Sequence[CellResult]) -> tuple[Breaker, ...]:
    """What each attack of a row broke, of the samples of its worst case. Certificates and corruptions are no attacks.

    Of a randomised model each attack is judged on its own scoring draws, so that the counts need not add up to the row's.
    """
    labels: dict[str, list[CellResult]] = {}
    for result in results:
        if result.cell.adversarial:
            labels.setdefault(result.cell.attack, []).append(result)
    ids = [str(name) for name in worst.id]
    found = {label: _broken(members, ids) for label, members in labels.items()}
    times = np.sum([bits for bits, _ in found.values()], axis=0) if found else np.zeros(len(ids))
    return tuple(
        Breaker(label, int(bits.sum()), int((bits & (times == 1)).sum()), stages)
        for label, (bits, stages) in found.items()
    )


def _broken(
    seeds: Sequence[CellResult], ids: Sequence[str]
) -> tuple[npt.NDArray[np.bool_], tuple[tuple[str, int], ...]]:
    """Which of the samples an attack broke, bool (N,), and how many of them each of its stages."""
    stage_of: dict[str, str] = {}
    for result in seeds:
        found = cells.outcomes(result)
        stages = [name for block in result.blocks for name in block.samples.stage or [""] * len(block.samples)]
        for name, broken, stage in zip(found.id.tolist(), found.correct & ~found.robust, stages, strict=True):
            if broken:
                stage_of.setdefault(name, stage)
    bits = np.array([name in stage_of for name in ids], dtype=np.bool_)
    named = [stage_of[name] for name in ids if stage_of.get(name)]
    counts = sorted(((stage, named.count(stage)) for stage in dict.fromkeys(named)), key=lambda entry: -entry[1])
    return bits, tuple(counts)
