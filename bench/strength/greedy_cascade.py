"""A cascade built greedily: the stage that breaks most new samples for each pass comes next.

After Liu, Peng and Tang, "Reliable robustness evaluation via automatically constructed attack ensembles" (AutoAE, AAAI 2023,
arXiv 2211.12713), who add the attack and its steps with the best gain for each iteration. Candidates are run once, each on all
samples, so that choosing costs no pass. A candidate may be restricted to samples near another class: then it is charged for the
samples alone that earlier stages brought nearer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Trial:
    """A candidate run on all samples of all networks, each sample by itself. Arrays have shape (N,)."""

    name: str
    broken: npt.NDArray[np.bool_]
    passes: npt.NDArray[np.float64]
    """Forward and backward passes until it was broken, or the whole budget."""
    nearness: npt.NDArray[np.float64]
    """The least share of the clean margin that the candidate left; infinite where it tells nothing."""
    near: float = np.inf
    """The candidate faces samples alone that earlier stages left with less than this share; infinite: all that stand."""


@dataclass(frozen=True)
class Pick:
    """A stage of a cascade, and its part in the result."""

    name: str
    near: float
    faced: int
    broke: int
    passes: float
    """Of all samples that faced it."""
    standing: int
    """After it."""


def build(trials: Sequence[Trial], *, begin: Sequence[Trial] = (), least_gain: float = 0.0) -> list[Trial]:
    """The trials in the order of the cascade: always the one that breaks most new samples for each pass, the first of equal ones.

    `begin`: what every cascade begins with; it is not part of the result. Ends where no candidate breaks a sample, or none at
    least `least_gain` samples for each thousand passes. Raises ValueError for no trials, and for trials of different samples.
    """
    state = _State.of([*begin, *trials])
    for one in begin:
        state.face(one)
    chosen: list[Trial] = []
    left = list(trials)
    while left:
        gains = [state.gain(one) for one in left]
        best = int(np.argmax(gains))
        if gains[best] <= 0 or 1000 * gains[best] < least_gain:
            break
        chosen.append(left.pop(best))
        state.face(chosen[-1])
    return chosen


def apply(cascade: Sequence[Trial]) -> list[Pick]:
    """What a cascade does to the samples of its trials, which may be others than it was built on. Raises as `build`."""
    state = _State.of(cascade)
    return [state.face(one) for one in cascade]


@dataclass
class _State:
    standing: npt.NDArray[np.bool_]
    nearness: npt.NDArray[np.float64]

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> _State:
        sizes = {len(one.broken) for one in trials}
        if len(sizes) != 1:
            raise ValueError(f"trials are of {sorted(sizes)} samples: give at least one, all of the same samples")
        (size,) = sizes
        return cls(np.ones(size, np.bool_), np.full(size, np.inf))

    def _faces(self, trial: Trial) -> npt.NDArray[np.bool_]:
        # Without a limit samples are faced whose nearness is not known too.
        faced: npt.NDArray[np.bool_] = self.standing & ((self.nearness < trial.near) | np.isinf(trial.near))
        return faced

    def gain(self, trial: Trial) -> float:
        """Newly broken samples for each pass."""
        faced = self._faces(trial)
        passes = trial.passes[faced].sum()
        return float((trial.broken & faced).sum() / passes) if passes else 0.0

    def face(self, trial: Trial) -> Pick:
        """Let the samples that the trial faces go through it."""
        faced = self._faces(trial)
        broke = faced & trial.broken
        self.standing &= ~broke
        self.nearness[faced] = np.minimum(self.nearness, trial.nearness)[faced]
        standing, passes = int(self.standing.sum()), float(trial.passes[faced].sum())
        return Pick(trial.name, trial.near, int(faced.sum()), int(broke.sum()), passes, standing)
