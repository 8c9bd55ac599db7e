"""Accuracy class by class: which class an attack hurts most, and by how much more than the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gauntlet.leaderboard.rows.worst_case import WorstCase
from gauntlet.leaderboard.stats.proportions import Proportion

_SHUFFLES = 2000


@dataclass(frozen=True)
class ClassFigures:
    """Clean and robust accuracy of one class, over its own samples, each with its 95 % interval."""

    label: int
    clean: Proportion
    robust: Proportion


@dataclass(frozen=True)
class ClassGap:
    """How far robust accuracy is apart between the classes; differences of shares, in 0..1."""

    best: ClassFigures
    worst: ClassFigures
    difference: float
    """Robust accuracy of the best class minus that of the worst."""
    below_mean: float
    """Mean of the classes' robust accuracies, each class counting the same, minus that of the worst."""
    p_value: float
    """Chance of a difference as large where every class is equally robust: best and worst are chosen after looking, so
    that some difference is always found."""


def per_class(worst: WorstCase) -> tuple[ClassFigures, ...]:
    """The figures of every class that has samples, by ascending label; robust is the worst case over the attacks."""
    found = []
    for label in np.unique(worst.label):
        members = worst.label == label
        found.append(
            ClassFigures(int(label), Proportion.of(worst.correct[members]), Proportion.of(worst.robust[members]))
        )
    return tuple(found)


def class_gap(classes: Sequence[ClassFigures]) -> ClassGap | None:
    """The gap between the best and the worst class (ties go to the smaller label); None where there are not two.

    `p_value`: a permutation test. Labels are shuffled 2,000 times over the samples, of which as many stay robust as did
    (with the class sizes given, that is a multivariate hypergeometric draw); seeded, so that it is the same each time.
    """
    if len(classes) < 2:
        return None
    shares = np.array([one.robust.estimate for one in classes])
    difference = float(shares.max() - shares.min())
    sizes = np.array([one.robust.n for one in classes])
    robust = sum(one.robust.successes for one in classes)
    chance = np.random.default_rng(0).multivariate_hypergeometric(sizes, robust, _SHUFFLES, method="marginals") / sizes
    as_large = np.count_nonzero(np.ptp(chance, axis=1) >= difference - 1e-12)
    return ClassGap(
        best=classes[int(shares.argmax())],
        worst=classes[int(shares.argmin())],
        difference=difference,
        below_mean=float(shares.mean() - shares.min()),
        p_value=(1 + int(as_large)) / (1 + _SHUFFLES),
    )
