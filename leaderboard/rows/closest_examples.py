"""The example that broke each sample of a row: the one that decides its worst case, with what it was taken for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.results.record import CellResult
from gauntlet.leaderboard.rows.worst_case import worst_case


@dataclass(frozen=True, eq=False)
class Broken:
    """A sample that is right when clean and that an attack of the row broke."""

    id: str
    label: int
    prediction: int
    """On the example."""
    distance: float
    """Measured, in the threat model's norm."""
    attack: str
    """Label of the attack that found the example."""
    cell: int
    """Which of the row's cells holds it."""


@dataclass(frozen=True, eq=False)
class Fates:
    """What became of the samples that every cell of a row covered, arrays of length n."""

    id: npt.NDArray[np.str_]
    label: npt.NDArray[np.int64]
    prediction: npt.NDArray[np.int64]
    """Under the worst case: on the example where the sample was broken, else the clean prediction."""
    broken: Mapping[str, Broken]
    """By id, in the order of the samples."""


def fates(results: Sequence[CellResult]) -> Fates:
    """What the worst case over the cells of one row makes of each sample.

    Of several examples of a sample, the one that is misclassified by the largest share of draws counts (always all, unless
    the model is randomised), then the closest, then the first in the order of the cells. Raises ValueError as `worst_case`.
    """
    worst = worst_case(results)
    fallen = {
        str(name)
        for name, correct, robust in zip(worst.id, worst.correct, worst.robust, strict=True)
        if correct & ~robust
    }
    found: dict[str, tuple[tuple[float, float], Broken]] = {}
    clean: dict[str, int] = {}
    for number, result in enumerate(results):
        for block in result.blocks:
            samples = block.samples
            for row, name in enumerate(samples.id.tolist()):
                clean.setdefault(name, int(samples.clean_prediction[row]))
                if name not in fallen or samples.robust[row] or np.isnan(samples.distance[row]):
                    continue
                order = -float(samples.wrong_share[row]), float(samples.distance[row])
                if name not in found or order < found[name][0]:
                    found[name] = (
                        order,
                        Broken(
                            name,
                            int(samples.label[row]),
                            int(samples.prediction[row]),
                            float(samples.distance[row]),
                            result.cell.attack,
                            number,
                        ),
                    )
    names = worst.id.tolist()
    broken = {name: found[name][1] for name in names if name in found}
    prediction = [broken[name].prediction if name in broken else clean[name] for name in names]
    return Fates(worst.id, worst.label, np.array(prediction, dtype=np.int64), broken)
