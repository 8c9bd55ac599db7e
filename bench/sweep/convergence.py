"""Convergence: the value of a setting from which robust accuracy no longer falls. Pure functions of robust bits."""

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
"""A larger value breaks significantly more samples if the p-value of the test is below this."""


@dataclass(frozen=True, eq=False)
class PointOutcome:
    """The outcome of a point. All points have the same samples in the same order."""

    point: Point
    correct: npt.NDArray[np.bool_]
    """(N,), classified correctly when clean."""
    robust: npt.NDArray[np.bool_]
    """(N,), robust in the worst case over the seeds."""
    by_seed: tuple[Proportion, ...]
    """Robust accuracy of each seed alone."""
    forwards: float
    """Forward passes a sample, summed over the seeds."""
    backwards: float
    """Backward passes a sample, summed over the seeds."""
    seconds: float

    @property
    def accuracy(self) -> Proportion:
        """Robust accuracy, in the worst case over the seeds."""
        return Proportion.of(self.robust)

    @property
    def passes(self) -> float:
        """Forward and backward passes a sample."""
        return self.forwards + self.backwards


@dataclass(frozen=True)
class AxisVerdict:
    """The verdict on one axis, with the other axes held fixed."""

    axis: str
    converged: bool | None
    """None for an axis that is not a budget: a larger value is then not stronger."""
    start: Setting | None
    """The smallest value from which on no larger value breaks significantly more samples; None if there is none."""
    more: int
    """Number of samples that a larger value breaks and `start` does not. Not converged: that the largest value breaks and the
    value before it does not."""
    sentence: str


def verdicts(outcomes: Sequence[PointOutcome], axes: Sequence[Axis]) -> list[AxisVerdict]:
    """A verdict for every budget and choice at each eps, and a verdict for eps itself if it was swept.

    Along a budget, the other budgets are held at their largest values and the choices at the values of the strongest outcome.
    Along a choice, all other axes are held at the values of the strongest outcome. The caller leaves out failed points.
    """
    results = []
    threats: dict[str, list[PointOutcome]] = {}
    for outcome in outcomes:
        threats.setdefault(outcome.point.threat, []).append(outcome)
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
            results.append(judge(line, axis.name, where + (f"with {beside}, " if beside else "")))
    if len(threats) > 1:
        results.append(along_eps([_strongest(members) for members in threats.values()]))
    return results


def along_budget(line: Sequence[PointOutcome], name: str, where: str = "") -> AxisVerdict:
    """The verdict on a budget; `line` has at least two outcomes in ascending order of the budget.

    A sweep has converged at the smallest value from which on no larger value breaks significantly more samples (one-sided exact
    McNemar test on the same samples, alpha 0.05, no correction for multiple tests, which would make convergence easier to
    claim). The largest value must be at least twice as large: that a few more steps break nothing is no evidence.
    """
    values = [one.point.values[name] for one in line]
    n = len(line[-1].robust)
    for place, one in enumerate(line[:-1]):
        if _number(values[-1]) < 2 * _number(values[place]):
            break
        if all(_gains(one, later) >= ALPHA for later in line[place + 1 :]):
            more = max((_more(one, later), index) for index, later in enumerate(line) if index > place)
            gain = (
                f"{_count(more[0], n)} broken by {name}={values[more[1]]}, the strongest of the larger values"
                if more[0]
                else f"no more of {n} samples are broken up to {name}={values[-1]}"
            )
            sentence = f"{where}converged from {name}={values[place]} on: {gain}"
            return AxisVerdict(name, True, values[place], more[0], sentence)
    before, last = line[-2:]
    enough = (
        "" if _gains(before, last) < ALPHA else f" (robust accuracy stopped falling above half of {name}={values[-1]})"
    )
    more_last = _more(before, last)
    sentence = (
        f"{where}not converged: the last step, {name}={values[-2]} to {values[-1]}, still broke "
        f"{_count(more_last, n)}; sweep {name} further{enough}"
    )
    return AxisVerdict(name, False, None, more_last, sentence)


def along_choice(line: Sequence[PointOutcome], name: str, where: str = "") -> AxisVerdict:
    """The strongest value of a choice, and the number of samples that only other values break."""
    best = _strongest(line)
    n = len(best.robust)
    others = sum(_more(best, one) > 0 for one in line)
    together = int(np.count_nonzero(best.robust & ~np.logical_and.reduce([one.robust for one in line])))
    value = best.point.values[name]
    rest = f"the other values break {_count(together, n)}" if others else "no other value breaks an additional sample"
    return AxisVerdict(name, None, value, together, f"{where}strongest is {name}={value}, {_percent(best)}; {rest}")


def along_eps(line: Sequence[PointOutcome]) -> AxisVerdict:
    """Whether a larger eps breaks all samples that a smaller eps breaks, and whether the largest eps breaks all samples.

    The ball of a larger eps holds the smaller balls, so an attack that breaks fewer samples in it is not as strong as it could
    be (Carlini et al. 2019, arXiv 1902.06705). An unbounded attack must break every sample.
    """
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
    return AxisVerdict(EPS, None, None, lost, sentence)


def by_series(outcomes: Sequence[PointOutcome], axes: Sequence[Axis]) -> tuple[Axis, Mapping[str, list[PointOutcome]]]:
    """The axis to draw along (the first budget, else eps, else the first), and the outcomes by the values of the other axes."""
    main = next((axis for kind in ("budget", "eps") for axis in axes if axis.kind == kind), axes[0])
    series: dict[str, list[PointOutcome]] = {}
    for one in outcomes:
        rest = ", ".join(f"{name}={value}" for name, value in one.point.setting if name != main.name)
        series.setdefault(rest, []).append(one)
    return main, series


def _strongest(outcomes: Sequence[PointOutcome]) -> PointOutcome:
    """The outcome with the lowest robust accuracy; the cheapest of equals."""
    return min(outcomes, key=lambda one: (one.accuracy.successes, one.passes))


def _gains(first: PointOutcome, later: PointOutcome) -> float:
    """The p-value of the test that `later` breaks more samples than `first`."""
    return mcnemar(first.robust, later.robust, "greater").p_value


def _more(first: PointOutcome, later: PointOutcome) -> int:
    """Number of samples that `later` breaks and `first` does not."""
    return int(np.count_nonzero(first.robust & ~later.robust))


def _count(more: int, n: int) -> str:
    low, high = Proportion(more, n).interval
    return f"{more} more of {n} ({100 * more / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}])"


def _percent(one: PointOutcome) -> str:
    low, high = one.accuracy.interval
    return f"{100 * one.accuracy.estimate:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _number(value: Setting) -> float:
    assert isinstance(value, int | float), "a budget's values are whole numbers"
    return float(value)
