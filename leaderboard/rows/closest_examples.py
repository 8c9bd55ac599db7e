"""The example that broke each sample of a row, with its prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.results.record import CellResult, Samples
from gauntlet.leaderboard.rows.worst_case import worst_case


@dataclass(frozen=True, eq=False)
class BrokenSample:
    """A sample that is correct when clean and that an attack of the row broke."""

    id: str
    label: int
    prediction: int
    """On the adversarial example."""
    distance: float
    """Measured, in the threat model's norm."""
    attack: str
    """Label of the attack that made the example."""
    cell: int
    """Index of the cell of the row that holds the example."""


@dataclass(frozen=True, eq=False)
class ClosestExamples:
    """The worst-case outcome of the samples that every cell of a row covered, arrays of length n."""

    id: npt.NDArray[np.str_]
    label: npt.NDArray[np.int64]
    prediction: npt.NDArray[np.int64]
    """On the adversarial example if the sample was broken, else on the clean image."""
    broken: Mapping[str, BrokenSample]
    """By id, in the order of the samples."""


def closest_examples(results: Sequence[CellResult]) -> ClosestExamples:
    """The adversarial example that decides the worst case of each sample, over the cells of one row.

    Of several examples of a sample, the first is taken by: largest share of draws that misclassify it (always 1 for a
    deterministic model), smallest distance, order of the cells. Raises ValueError as `worst_case` does.
    """
    worst = worst_case(results)
    fallen = set(worst.id[worst.correct & ~worst.robust].tolist())
    best: dict[str, tuple[tuple[float, float], BrokenSample]] = {}
    clean: dict[str, int] = {}
    for cell, result in enumerate(results):
        for samples in (block.samples for block in result.blocks):
            for index, name in enumerate(samples.id.tolist()):
                clean.setdefault(name, int(samples.clean_prediction[index]))
                if name not in fallen or samples.robust[index] or np.isnan(samples.distance[index]):
                    continue
                order = -float(samples.wrong_share[index]), float(samples.distance[index])
                if name not in best or order < best[name][0]:
                    best[name] = order, _broken(samples, index, result.cell.attack, cell)
    names = worst.id.tolist()
    broken = {name: best[name][1] for name in names if name in best}
    prediction = [broken[name].prediction if name in broken else clean[name] for name in names]
    return ClosestExamples(worst.id, worst.label, np.array(prediction, dtype=np.int64), broken)


def _broken(samples: Samples, index: int, attack: str, cell: int) -> BrokenSample:
    return BrokenSample(
        id=str(samples.id[index]),
        label=int(samples.label[index]),
        prediction=int(samples.prediction[index]),
        distance=float(samples.distance[index]),
        attack=attack,
        cell=cell,
    )
