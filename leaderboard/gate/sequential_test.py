"""The gate's sequential test: a verdict as soon as the evidence suffices, with error rates that hold after every sample.

Samples are attacked in a random order that was fixed beforehand. The difference D of a sample is +1 if it was robust in the
baseline and is lost now, -1 if it was gained, 0 if it did not flip. Two kinds of evidence are computed. Each is the wealth of a
bettor against a hypothesis: it starts at 1 and does not grow on average if the hypothesis is true (a nonnegative
supermartingale). By Ville's inequality the chance that it *ever* reaches 1 / alpha is then at most alpha, so that the test may
be evaluated after each sample and stopped at any time.

*The e-value of a drop* (`log_e_drop`) bets against "a flip is a loss with probability at most 1/2", the hypothesis of the
one-sided McNemar test. *The wealth for held* (`log_e_held`) bets against "the drop is at least the margin", by Waudby-Smith and
Ramdas, "Estimating means of bounded random variables by betting" (Journal of the Royal Statistical Society B 86, 2024).

The decision is *regressed* once the e-value of a drop reaches tests / alpha (Bonferroni: the chance that any of the cells without
a drop is ever called regressed is at most alpha), and *held* once the wealth has reached 1 / alpha, uncorrected for the reason
given in `judge`. As there, samples are taken as independent draws from a population, and the drop is that of the population.
Exactly enumerated over 2,000 samples at alpha 5 %, one cell: ever regressed 3.7 % if every sample flips, either way equally
likely (less if fewer do), ever held at most 4.7 % if the drop is the margin of 2 points.

The cost, at margin 0.02 and alpha 0.05, for one cell with new weights: shares of runs in percent and mean numbers of samples (a
run that stays undecided counts with all its samples), enumerated exactly, and confirmed by simulation of `sequential_decision`
(seeds and repetitions in the tests):

    lost / gained       of 797: regressed, held, mean       of 2,000: regressed, held, mean
    0 / 0                     0.0    100.0    180                 0.0    100.0    180
    0.25 % / 0.25 %           0.1     99.9    230                 0.1     99.9    230
    0.5 % / 0.5 %             0.5     98.0    286                 0.6     99.4    288
    1 % / 1 %                 1.4     85.1    393                 1.8     98.1    428
    2.5 % / 0.5 %            82.4      4.1    444                95.6      4.4    480
    11 % / 1 %              100.0      0.0     83               100.0      0.0     83
    10 % / 0                100.0      0.0     70               100.0      0.0     70

With five cells the last three take 577, 114 and 90 of 797 samples on average, and the first of these is regressed in 62.2 % of
runs. With the baseline's weights (`both_ways`) the first three take 180, 292 and 398. The price of testing after every sample:
with 2.5 % lost and 0.5 % gained, 89.2 % of runs are regressed by the 1,000th sample, compared with 98 % by the fixed test.

Limits: without a flip, held takes 180 samples (the best bet, which is not known beforehand, would take 152, about
ln(1 / alpha) / margin), and each loss adds 90 to 130. Regressed takes at least 7 losses, or 9 with five cells; the fixed test
takes 5 and 7.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, betaln, hyp2f1

from gauntlet.leaderboard.gate.report import GateVerdict

_Counts = npt.ArrayLike
_Floats = npt.NDArray[np.float64]
_Differences = npt.NDArray[np.integer]
_Ints = npt.NDArray[np.int64]

BETS: Final[_Floats] = np.arange(1, 11) / 10
"""The shares of the wealth that are bet in `log_e_held`: fixed, and the same for every margin."""

PRIOR: Final[_Floats] = BETS**2 / np.sum(BETS**2)
"""The share of the initial wealth that each bet gets."""


def log_e_drop(lost: _Counts, gained: _Counts) -> _Floats:
    """Natural logarithm of the e-value against "a flip is a loss with probability at most 1/2"; any shape, broadcast.

    If a loss has probability theta, the wealth is (2 theta)^lost (2 (1 - theta))^gained, a likelihood ratio. It is averaged
    over theta uniform in 1/2..1, which needs no assumption on the size of a drop (a mixture of supermartingales is one). With
    n = lost + gained that is 2^(n + 1) B(lost + 1, gained + 1) I(gained + 1, lost + 1) at 1/2, where B and I are the complete
    and the regularised incomplete beta function. If most flips are gains, I underflows; the same integral is then computed as
    F(-lost, 1; gained + 2; -1) / (gained + 1), where F is the hypergeometric function, a sum of lost + 1 terms.
    """
    lost, gained = np.asarray(lost, np.float64), np.asarray(gained, np.float64)
    few = np.minimum(lost, gained)
    rising = np.log(hyp2f1(-few, 1, gained + 2, -1) / (gained + 1))
    most = np.maximum(lost, gained)
    tail = np.log(betainc(gained + 1, most + 1, 0.5))
    falling = (most + gained + 1) * math.log(2) + betaln(most + 1, gained + 1) + tail
    logs: _Floats = np.where(lost > gained, falling, rising)
    return logs


def log_e_held(lost: _Counts, gained: _Counts, n: _Counts, margin: float) -> _Floats:
    """Natural logarithm of the wealth against "the drop is at least `margin`" after `n` samples; any shape, broadcast.

    A bet of the share b multiplies the wealth by 1 + b (margin - D): by at most 1 on average if the drop is the margin or
    more, and never by less than 0 for b up to 1. Ten such bets run in parallel (`BETS`), each with its share of the wealth
    (`PRIOR`), so that the wealth depends on the counts and not on the order of the samples.

    The best single bet depends on the rate of flips, which is not known beforehand: at margin 0.02 and alpha 0.05 it is 1
    without flips (152 samples on average), 0.9 at 0.25 % each way (216), 0.8 at 0.5 % (277), 0.4 at 2 % (664). Shares that grow
    with the square of the bet favour few flips: the mixture takes 28, 14, 13 and 159 samples more than the best bet, equal
    shares 63, 51, 47 and 98 (exact means within 2,000 samples).
    """
    lost, gained, n = (np.asarray(count, np.float64)[..., None] for count in (lost, gained, n))
    logs = lost * np.log1p(BETS * (margin - 1)) + gained * np.log1p(BETS * (margin + 1))
    logs += (n - lost - gained) * np.log1p(BETS * margin) + np.log(PRIOR)
    mixed: _Floats = np.logaddexp.reduce(logs, axis=-1)
    return mixed


def upper(differences: _Differences, alpha: float) -> float:
    """Upper bound of the drop at confidence 1 - `alpha`, valid after every sample at once, in 0..1.

    `differences` is int (k,), with values -1, 0 and 1, in the order of the samples. The bound is the smallest margin against
    which the wealth has ever reached 1 / alpha: it never rises with more samples, and is at most the margin as soon as
    `sequential_decision` may return held. It is at least 0, the smallest margin that can be bet against, and 1 if the evidence
    rules nothing out. Raises ValueError for other values.
    """
    _check(differences, alpha)
    # Along equal differences the wealth is a sum of exponentials of n, hence convex: its maximum is where they change.
    ends = np.flatnonzero(np.diff(differences, prepend=0, append=2))
    lost, gained, n = (count[ends] for count in _counts(differences))

    def ruled_out(margin: float) -> bool:
        return bool(np.any(log_e_held(lost, gained, n, margin) >= -math.log(alpha)))

    low, high = 0.0, 1.0
    for _ in range(40 if ruled_out(high) else 0):
        middle = (low + high) / 2
        low, high = (low, middle) if ruled_out(middle) else (middle, high)
    return high


@dataclass(frozen=True)
class SequentialDecision:
    """The decision of the sequential test, and the sample after which it fell."""

    verdict: GateVerdict | None
    """regressed, suspicious or held; None if undecided."""
    at: int
    """Number of samples after which it was decided; all of them if undecided."""
    lost: int
    """Number of losses among the first `at` samples."""
    gained: int
    e_drop: float
    """E-value of a drop after `at` samples; larger values are stronger evidence."""
    e_rise: float
    """E-value of a rise after `at` samples."""
    upper: float
    """Upper bound of the drop after `at` samples (see `upper`)."""


def sequential_decision(
    differences: _Differences, *, margin: float, alpha: float, tests: int, both_ways: bool
) -> SequentialDecision:
    """Test one cell's samples in their order, up to the first that decides; later samples change nothing.

    `differences` is int (k,), with values -1, 0 and 1. *regressed*: the e-value of a drop reaches `tests` / `alpha`, where
    `tests` is the number of cells. *suspicious*, only with `both_ways` (the weights are the baseline's): the e-value of a rise
    does. *held*: the wealth against a drop of `margin` (a share, above 0 and below 1) has reached 1 / `alpha`, and with
    `both_ways` that against a rise of `margin` too. If several are reached at one sample, the first named counts. Raises
    ValueError for other values.
    """
    _check(differences, alpha)
    _check_margin(margin)
    if tests < 1:
        raise ValueError(f"tests {tests!r} must be the number of cells, at least 1")
    lost, gained, n = _counts(differences)
    drop, rise = _along(lost, gained), _along(gained, lost)
    enough, significant = -math.log(alpha), math.log(tests / alpha)
    held = np.logical_or.accumulate(log_e_held(lost, gained, n, margin) >= enough)
    if both_ways:
        held &= np.logical_or.accumulate(log_e_held(gained, lost, n, margin) >= enough)
    reached: dict[GateVerdict, npt.NDArray[np.bool_]] = {
        "regressed": drop >= significant,
        "suspicious": (rise >= significant) & both_ways,
        "held": held,
    }
    first: dict[GateVerdict, int] = {name: int(np.argmax(hit)) for name, hit in reached.items() if hit.any()}
    verdict = min(first, key=lambda name: first[name], default=None)
    at = first[verdict] if verdict else len(differences)
    return SequentialDecision(
        verdict=verdict,
        at=at,
        lost=int(lost[at]),
        gained=int(gained[at]),
        e_drop=math.exp(drop[at]),
        e_rise=math.exp(rise[at]),
        upper=upper(differences[:at], alpha),
    )


def needed_more(lost: int, gained: int, n: int, *, margin: float, alpha: float, both_ways: bool = False) -> int:
    """The number of further samples that decide for *held* if none of them flips, after `lost` and `gained` of `n` samples.

    0 if these decide already. Samples that do not flip do not change the e-values of drop and rise. An estimate: each further
    loss needs more samples. Raises ValueError for counts that do not fit `n`, and for a margin outside 0..1.
    """
    _check_margin(margin)
    if not (lost >= 0 and gained >= 0 and lost + gained <= n):
        raise ValueError(f"lost {lost!r} and gained {gained!r} must be counts of different samples out of n {n!r}")

    def decides(more: int) -> bool:
        wealth = log_e_held(lost, gained, n + more, margin)
        back = log_e_held(gained, lost, n + more, margin) if both_ways else wealth
        return bool(np.minimum(wealth, back) >= -math.log(alpha))

    return bisect_left(range(1 << 62), True, key=decides)


def _counts(differences: _Differences) -> tuple[_Ints, _Ints, _Ints]:
    """Numbers of lost samples, of gained samples, and of all samples, after 0, 1, … samples."""
    lost, gained = (np.append(0, np.cumsum(differences == value)) for value in (1, -1))
    return lost, gained, np.arange(len(differences) + 1)


def _along(lost: _Ints, gained: _Ints) -> _Floats:
    """`log_e_drop` after each sample; computed once per flip, since it changes with flips only."""
    flips = lost + gained
    first = np.searchsorted(flips, np.arange(flips[-1] + 1))
    along: _Floats = log_e_drop(lost[first], gained[first])[flips]
    return along


def _check(differences: _Differences, alpha: float) -> None:
    if differences.ndim != 1 or not np.isin(differences, (-1, 0, 1)).all():
        raise ValueError(f"differences {differences!r} must be a flat array of 1 (lost), 0 and -1 (gained)")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha {alpha!r} must lie above 0 and below 1, such as 0.05")


def _check_margin(margin: float) -> None:
    if not 0 < margin < 1:
        raise ValueError(f"margin {margin!r} must be a share of the samples above 0 and below 1, such as 0.02")
