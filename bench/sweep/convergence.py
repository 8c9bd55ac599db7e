"""Where robust accuracy stops falling along the settings of a sweep. Pure: bits in, verdicts out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.registry.settings import Setting
from gauntlet.bench.sweep.grid import EPS, Axis, Point
from gauntlet.leaderboard.stats.proportions import Proportion, mcnemar

ALPHA = 0.05
"""Level of the test whether a larger value breaks more samples."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result of a point; all points have the same samples in the same order."""

    point: Point
    correct: npt.NDArray[np.bool_]
    """(N,), whether the clean sample is classified correctly."""
    robust: npt.NDArray[np.bool_]
    """(N,), in the worst case over the seeds."""
    by_seed: tuple[Proportion, ...]
    """Robust accuracy for each seed."""
    forwards: float
    """Passes per sample, over all seeds together."""
    backwards: float
    seconds: float

    @property
    def accuracy(self) -> Proportion:
        """Robust accuracy, in the worst case over the seeds."""
        return Proportion.of(self.robust)

    @property
    def passes(self) -> float:
        """Forward and backward passes per sample."""
        return self.forwards + self.backwards


@dataclass(frozen=True)
class Verdict:
    """The verdict on one axis, with the other axes fixed."""

    axis: str
    converged: bool | None
    """None for axes that are no budget."""
    start: Setting | None
    """The smallest value above which nothing significant is gained; None if there is none."""
    more: int
    """Samples broken by the largest value but not by `start` or, if not converged, by the second largest value."""
    sentence: str


def verdicts(outcomes: Sequence[Outcome], axes: Sequence[Axis]) -> list[Verdict]:
    """For each eps, a verdict on every budget and choice; and a verdict on eps itself, if it is swept.

    Along a budget, the other budgets are fixed at their largest values and the choices at those of the strongest outcome; along
    a choice, all others are fixed at the values of the strongest outcome. The caller leaves out failed outcomes.
    """
    found = []
    threats: dict[str, list[Outcome]] = {}
    for one in outcomes:
        threats.setdefault(one.point.threat, []).append(one)
    for threat, members in threats.items():
        where = f"{threat}: " if len(threats) > 1 else ""
        strongest = _strongest(members)
        for axis in axes:
            held = {
                other.name: other.values[-1]
                if other.kind == "budget" and axis.kind == "budget"
                else strongest.point.values[other.name]
                for other in axes
                if other is not axis and other.kind != "eps"
            }
            line = [one for one in members if all(one.point.values[name] == value for name, value in held.items())]
            if axis.kind == "eps" or len(line) < 2:
                continue
            beside = ", ".join(f"{name}={value}" for name, value in held.items())
            judge = along_budget if axis.kind == "budget" else along_choice
            found.append(judge(line, axis.name, where + (f"with {beside}, " if beside else "")))
    if len(threats) > 1:
        found.append(along_eps([_strongest(members) for members in threats.values()]))
    return found


def along_budget(line: Sequence[Outcome], name: str, where: str = "") -> Verdict:
    """Where robust accuracy stops falling along a budget; `line` ascends by it and has at least two outcomes.

    Converged is the smallest value from which on no larger one breaks significantly more samples (one-sided exact McNemar
    test on the same samples, alpha 0.05, each pair by itself: a correction for many would only make convergence easier to
    claim), if the largest value swept is at least twice as large: nothing gained by a few steps more is no evidence.
    """
    values = [one.point.values[name] for one in line]
    n = len(line[-1].robust)
    for place, one in enumerate(line[:-1]):
        if _number(values[-1]) < 2 * _number(values[place]):
            break
        if all(_gains(one, later) >= ALPHA for later in line[place + 1 :]):
            more = max((_more(one, later), index) for index, later in enumerate(line) if index > place)
            sentence = (
                f"{where}converged from {name}={values[place]} on: {_count(more[0], n)} broken by {name}={values[more[1]]}, "
                "the most that any larger value breaks in addition"
                if more[0]
                else f"{where}converged from {name}={values[place]} on: up to {name}={values[-1]} none more of {n} is broken"
            )
            return Verdict(name, True, values[place], more[0], sentence)
    before, last = line[-2:]
    enough = (
        "" if _gains(before, last) < ALPHA else f" (where it stopped falling is more than half of {name}={values[-1]})"
    )
    more_last = _more(before, last)
    sentence = (
        f"{where}not converged: the last step, {name}={values[-2]} to {values[-1]}, still broke "
        f"{_count(more_last, n)}; sweep {name} further{enough}"
    )
    return Verdict(name, False, None, more_last, sentence)


def along_choice(line: Sequence[Outcome], name: str, where: str = "") -> Verdict:
    """Which value of a choice is strongest, and what the others break that it does not."""
    best = _strongest(line)
    n = len(best.robust)
    others = sum(_more(best, one) > 0 for one in line)
    together = int(np.count_nonzero(best.robust & ~np.logical_and.reduce([one.robust for one in line])))
    value = best.point.values[name]
    rest = (
        f"the other values break {_count(together, n)}" if others else "no other value breaks a sample that it does not"
    )
    return Verdict(name, None, value, together, f"{where}strongest is {name}={value}, {_percent(best)}; {rest}")


def along_eps(line: Sequence[Outcome]) -> Verdict:
    """Whether a larger eps breaks all that a smaller one does: every ball holds the smaller ones, so an attack that loses
    samples is not as strong as it could be (Carlini et al. 2019, arXiv 1902.06705); and whether the largest eps
    breaks everything, as an unbounded attack must."""
    line = sorted(line, key=lambda one: ThreatModel.parse(one.point.threat).eps)
    lost, pair = max(
        (_more(after, before), f"{before.point.threat} but not at {after.point.threat}")
        for before, after in itertools.pairwise(line)
    )
    first, last = line[0], line[-1]
    sentence = f"robust accuracy falls from {_percent(first)} at {first.point.threat} to {_percent(last)} at {last.point.threat}"
    if last.accuracy.successes:
        sentence += "; it has not reached 0"
    if lost:
        sentence += (
            f"; {lost} of {len(last.robust)} samples are broken at {pair}: the attack is not at its strongest there"
        )
    return Verdict(EPS, None, None, lost, sentence)


def by_series(outcomes: Sequence[Outcome], axes: Sequence[Axis]) -> tuple[Axis, Mapping[str, list[Outcome]]]:
    """The axis to draw along (the first budget, else eps, else the first), and the outcomes by the others' values."""
    main = next((axis for kind in ("budget", "eps") for axis in axes if axis.kind == kind), axes[0])
    series: dict[str, list[Outcome]] = {}
    for one in outcomes:
        rest = ", ".join(f"{name}={value}" for name, value in one.point.setting if name != main.name)
        series.setdefault(rest, []).append(one)
    return main, series


def _strongest(outcomes: Sequence[Outcome]) -> Outcome:
    """The lowest robust accuracy; of equals, the cheapest."""
    return min(outcomes, key=lambda one: (one.accuracy.successes, one.passes))


def _gains(first: Outcome, later: Outcome) -> float:
    """The p-value of `later` breaking more than `first`."""
    return mcnemar(first.robust, later.robust, "greater").p_value


def _more(first: Outcome, later: Outcome) -> int:
    """Samples that `later` breaks and `first` does not."""
    return int(np.count_nonzero(first.robust & ~later.robust))


def _count(more: int, n: int) -> str:
    low, high = Proportion(more, n).interval
    return f"{more} more of {n} ({100 * more / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}])"


def _percent(one: Outcome) -> str:
    low, high = one.accuracy.interval
    return f"{100 * one.accuracy.estimate:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _number(value: Setting) -> float:
    assert isinstance(value, int | float), "a budget's values are whole numbers"
    return float(value)
