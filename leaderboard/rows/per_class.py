"""Accuracy per class, and the gap between the best and the worst class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gauntlet.leaderboard.rows.worst_case import WorstCase
from gauntlet.leaderboard.stats.proportions import Proportion

_SHUFFLES = 2000


@dataclass(frozen=True)
class ClassAccuracy:
    """Clean and robust accuracy of one class, over its own samples, each with its 95 % interval."""

    label: int
    clean: Proportion
    robust: Proportion
    name: str = ""
    """Empty where classes have no names."""

    @property
    def title(self) -> str:
        """The name, or else the label."""
        return self.name or str(self.label)


@dataclass(frozen=True)
class ClassGap:
    """Differences of robust accuracy between classes, as shares in 0..1."""

    best: ClassAccuracy
    worst: ClassAccuracy
    difference: float
    """Robust accuracy of the best class minus that of the worst."""
    below_mean: float
    """Mean of the classes' robust accuracies, each class weighted equally, minus that of the worst."""
    p_value: float
    """Chance of a difference at least as large if every class were equally robust. Best and worst class are chosen after
    looking at the data, so that some difference is always found."""


def per_class(worst: WorstCase, names: Sequence[str] = ()) -> tuple[ClassAccuracy, ...]:
    """The accuracies of every class that has samples, by ascending label; robust is the worst case over the attacks.

    `names`: names of the classes by label, if they have any.
    """
    classes = []
    for label in np.unique(worst.label):
        members = worst.label == label
        clean, robust = Proportion.of(worst.correct[members]), Proportion.of(worst.robust[members])
        classes.append(ClassAccuracy(int(label), clean, robust, names[label] if names else ""))
    return tuple(classes)


@lru_cache(maxsize=4096)
def _as_large(sizes: tuple[int, ...], robust: int, difference: float) -> int:
    """How often a difference is as large where labels are shuffled. Every surface of a report asks for it."""
    draws = np.random.default_rng(0).multivariate_hypergeometric(sizes, robust, _SHUFFLES, method="marginals")
    return int(np.count_nonzero(np.ptp(draws / np.array(sizes), axis=1) >= difference - 1e-12))


def class_gap(classes: Sequence[ClassAccuracy]) -> ClassGap | None:
    """The gap between the best and the worst class (ties go to the smaller label); None for fewer than two classes.

    `p_value` comes from a permutation test with a fixed seed: labels are shuffled 2,000 times over the samples, of which as many
    stay robust as observed (given the class sizes, that is a multivariate hypergeometric draw).
    """
    if len(classes) < 2:
        return None
    shares = np.array([accuracy.robust.estimate for accuracy in classes])
    difference = float(shares.max() - shares.min())
    sizes = np.array([accuracy.robust.n for accuracy in classes])
    robust = sum(accuracy.robust.successes for accuracy in classes)
    as_large = _as_large(tuple(sizes.tolist()), robust, difference)
    return ClassGap(
        best=classes[int(shares.argmax())],
        worst=classes[int(shares.argmin())],
        difference=difference,
        below_mean=float(shares.mean() - shares.min()),
        p_value=(1 + as_large) / (1 + _SHUFFLES),
    )
