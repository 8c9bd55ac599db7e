"""The number of samples that each attack of a row broke, and that no other attack of the row broke."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gauntlet.leaderboard.results.sample_set import numbered
from gauntlet.leaderboard.results.summary import AnyResult, Bits, CellSummary, summaries
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


def broken_by(worst: WorstCase, results: Sequence[AnyResult]) -> tuple[BrokenBy, ...]:
    """The numbers for each attack of a row, on the samples of its worst case. Certificates and corruptions are not attacks.

    For a randomised model each attack is judged on its own scoring draws, so that the numbers need not add up to the row's.
    """
    labels: dict[str, list[CellSummary]] = {}
    for result in summaries(results):
        if result.cell.adversarial:
            labels.setdefault(result.cell.attack, []).append(result)
    broken = {label: _broken(members, worst) for label, members in labels.items()}
    times = np.sum([bits for bits, _ in broken.values()], axis=0) if broken else np.zeros(len(worst))
    return tuple(
        BrokenBy(label, int(bits.sum()), int((bits & (times == 1)).sum()), stages)
        for label, (bits, stages) in broken.items()
    )


def _broken(seeds: Sequence[CellSummary], worst: WorstCase) -> tuple[Bits, tuple[tuple[str, int], ...]]:
    """Whether an attack broke each of the samples, bool (N,), and the number of them that each of its stages broke.

    Of several seeds the first that broke a sample counts.
    """
    count, (own, *numbers) = numbered([worst.samples, *(result.samples for result in seeds)])
    labels: dict[str, int] = {"": 0}
    broken, by = np.zeros(count, np.bool_), np.zeros(count, np.intp)
    for result, number in zip(seeds, numbers, strict=True):
        first = result.broken & ~broken[number]
        if result.stage is not None:
            codes = np.array([labels.setdefault(label, len(labels)) for label in result.stage.values], dtype=np.intp)
            by[number[first]] = codes[result.stage.codes][first]
        broken[number[first]] = True
    stages = by[own][broken[own]]
    found, places, times = np.unique(stages, return_index=True, return_counts=True)
    names = list(labels)
    in_order = sorted(zip(places.tolist(), found.tolist(), times.tolist(), strict=True))
    counts = [(names[code], number) for _, code, number in in_order if code]
    return broken[own], tuple(sorted(counts, key=lambda entry: -entry[1]))
