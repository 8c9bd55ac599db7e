"""The gate's sequential test: a verdict as soon as the evidence suffices, with error rates that hold at every look.

Samples are attacked in a random order that was fixed beforehand. Each one's difference D is +1 where it was robust in the
baseline and is lost now, -1 where it was gained, 0 where it did not flip. Two kinds of evidence are gathered, each one the
wealth of somebody who bets against a hypothesis: it begins at 1 and cannot be expected to grow where the hypothesis is true
(a nonnegative supermartingale). By Ville's inequality the chance that it *ever* reaches 1 / alpha is then at most alpha, so
that one may look after each sample and stop when one likes.

*The e-value of a drop* (`log_e_drop`) bets against "a flip is a loss with probability at most 1/2", the hypothesis of the
one-sided McNemar test. *The wealth for held* (`log_e_held`) bets against "the drop is at least the margin", by Waudby-Smith and
Ramdas, "Estimating means of bounded random variables by betting" (Journal of the Royal Statistical Society B 86, 2024).

`walk` says *regressed* once the e-value of a drop reaches tests / alpha (Bonferroni: the chance that any of the cells without
a drop is ever called regressed is at most alpha), and *held* once the wealth has reached 1 / alpha, uncorrected for the reason
that `gate` gives. As there, samples are taken as independent draws from all that one might have drawn; the drop is the one
among these. Exactly enumerated over 2,000 samples at alpha 5 %, one cell: ever regressed 3.7 % where every sample flips, either
way equally likely (less where fewer do), ever held at most 4.7 % where the drop is the margin of 2 points.

What it takes, at margin 0.02 and alpha 0.05, for one cell whose weights are new. Shares of runs in percent and mean numbers of
samples (a run that stays undecided counts with all its samples), enumerated exactly, and confirmed by simulation through `walk`
(seeds and repetitions in tests/leaderboard/gate/test_sequential_test.py):

    lost / gained       of 797: regressed, held, mean       of 2,000: regressed, held, mean
    0 / 0                     0.0    100.0    180                 0.0    100.0    180
    0.25 % / 0.25 %           0.1     99.9    230                 0.1     99.9    230
    0.5 % / 0.5 %             0.5     98.0    286                 0.6     99.4    288
    1 % / 1 %                 1.4     85.1    393                 1.8     98.1    428
    2.5 % / 0.5 %            82.4      4.1    444                95.6      4.4    480
    11 % / 1 %              100.0      0.0     83               100.0      0.0     83
    10 % / 0                100.0      0.0     70               100.0      0.0     70

Among five cells the last three take 577, 114 and 90 of 797 samples on average, and the first of these is regressed in 62.2 %
of runs. With the baseline's weights (`both_ways`) the first three take 180, 292 and 398. The price of looking at every sample:
with 2.5 % lost and 0.5 % gained, 89.2 % of runs are regressed by the 1,000th sample, by the fixed test 98 %.

What limits it: without a flip held takes 180 samples (a bet that knew it would take 152, about ln(1 / alpha) / margin), and each
loss asks for 90 to 130 more. Regressed takes at least 7 losses, or 9 among five cells; the fixed test takes 5 and 7.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, betaln, hyp2f1

from gauntlet.leaderboard.gate.report import Verdict

_Counts = npt.ArrayLike
_Floats = npt.NDArray[np.float64]
_Differences = npt.NDArray[np.integer]
_Ints = npt.NDArray[np.int64]

BETS: Final[_Floats] = np.arange(1, 11) / 10
"""The shares of the wealth that are bet in `log_e_held`: fixed, and the same for every margin."""

PRIOR: Final[_Floats] = BETS**2 / np.sum(BETS**2)
"""How much of the wealth each of them gets at the start."""


def log_e_drop(lost: _Counts, gained: _Counts) -> _Floats:
    """Natural logarithm of the e-value against "a flip is a loss with probability at most 1/2"; any shape, broadcast.

    For a loss with probability theta the wealth is (2 theta)^lost (2 (1 - theta))^gained, a likelihood ratio; it is averaged
    over theta uniform in 1/2..1, which needs no guess of how large a drop would be (a mixture of supermartingales is one).
    With n = lost + gained that is 2^(n + 1) B(lost + 1, gained + 1) I(gained + 1, lost + 1) at 1/2, B and I the complete
    and the regularised incomplete beta function. Where most flips are gains, I falls below what a float can hold; there the
    same integral is F(-lost, 1; gained + 2; -1) / (gained + 1), F the hypergeometric function, a sum of lost + 1 terms.
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

    A bet of the share b multiplies the wealth by 1 + b (margin - D): by at most 1 on average where the drop is the margin or
    more, and never by less than 0 for b up to 1. Ten such bets run beside each other (`BETS`), each with its part of the
    wealth (`PRIOR`), so that the order of the samples does not matter, only the counts.

    The best single bet depends on how often samples flip, which is not known beforehand: at margin 0.02 and alpha 0.05 it is 1
    without flips (152 samples on average), 0.9 at 0.25 % each way (216), 0.8 at 0.5 % (277), 0.4 at 2 % (664). Parts that grow
    with the square of the bet favour few flips: the mixture takes 28, 14, 13 and 159 samples more than that, equal parts 63,
    51, 47 and 98. (Exact means within 2,000 samples.)
    """
    lost, gained, n = (np.asarray(count, np.float64)[..., None] for count in (lost, gained, n))
    logs = lost * np.log1p(BETS * (margin - 1)) + gained * np.log1p(BETS * (margin + 1))
    logs += (n - lost - gained) * np.log1p(BETS * margin) + np.log(PRIOR)
    mixed: _Floats = np.logaddexp.reduce(logs, axis=-1)
    return mixed


def upper(differences: _Differences, alpha: float) -> float:
    """Upper bound of the drop at confidence 1 - `alpha`, valid after every sample at once, in 0..1.

    `differences` is int (k,), of -1, 0, 1, in the order of the samples. The least margin against which the wealth has ever
    reached 1 / alpha: it never rises as samples come, and it is at most the margin as soon as `walk` may say held. It does not
    go below 0, where the bets end; 1 where nothing can be said yet. Raises ValueError for other values.
    """
    _check(differences, alpha)
    # Along equal differences the wealth is a sum of exponentials of n, thus convex: it is highest where they change.
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
class Walk:
    """How far the samples had to be followed, and what was found there."""

    verdict: Verdict | None
    """regressed, suspicious or held; None while undecided."""
    at: int
    """The number of samples after which it was decided; all of them where it was not."""
    lost: int
    """Among the first `at` samples."""
    gained: int
    e_drop: float
    """E-value of a drop after `at` samples: the larger, the stronger the evidence."""
    e_rise: float
    """E-value of a rise, likewise."""
    upper: float
    """Upper bound of the drop after `at` samples (see `upper`)."""


def walk(differences: _Differences, *, margin: float, alpha: float, tests: int, both_ways: bool) -> Walk:
    """Follow one cell's samples in their order up to the first that decides; later ones change nothing.

    `differences` is int (k,), of -1, 0, 1. *regressed* once the e-value of a drop reaches `tests` / `alpha`, `tests` being the
    number of cells; *suspicious*, only with `both_ways` (the weights are the baseline's), once that of a rise does; *held*
    once the wealth against a drop of `margin` (a share, above 0 and below 1) has reached 1 / `alpha`, and with `both_ways` that
    against a rise of `margin` too. Of several at one sample the first named counts. Raises ValueError for other values.
    """
    _check(differences, alpha)
    _check_margin(margin)
    if tests < 1:
        raise ValueError(f"tests {tests!r} must be the number of cells that are judged, at least 1")
    lost, gained, n = _counts(differences)
    drop, rise = _along(lost, gained), _along(gained, lost)
    enough, significant = -math.log(alpha), math.log(tests / alpha)
    held = np.logical_or.accumulate(log_e_held(lost, gained, n, margin) >= enough)
    if both_ways:
        held &= np.logical_or.accumulate(log_e_held(gained, lost, n, margin) >= enough)
    reached: dict[Verdict, npt.NDArray[np.bool_]] = {
        "regressed": drop >= significant,
        "suspicious": (rise >= significant) & both_ways,
        "held": held,
    }
    first: dict[Verdict, int] = {name: int(np.argmax(hit)) for name, hit in reached.items() if hit.any()}
    verdict = min(first, key=lambda name: first[name], default=None)
    at = first[verdict] if verdict else len(differences)
    return Walk(
        verdict=verdict,
        at=at,
        lost=int(lost[at]),
        gained=int(gained[at]),
        e_drop=math.exp(drop[at]),
        e_rise=math.exp(rise[at]),
        upper=upper(differences[:at], alpha),
    )


def needed_more(lost: int, gained: int, n: int, *, margin: float, alpha: float, both_ways: bool = False) -> int:
    """How many samples more decide for *held* if none of them flips, after `lost` and `gained` of `n`; 0 where these decide.

    Samples that do not flip leave the e-values of drop and rise as they are. A guide, no promise: each further loss asks for
    more. Raises ValueError for counts that do not fit `n`, and for a margin outside 0..1.
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
    """How many were lost and gained, and how many there were, after 0, 1, … samples."""
    lost, gained = (np.append(0, np.cumsum(differences == value)) for value in (1, -1))
    return lost, gained, np.arange(len(differences) + 1)


def _along(lost: _Ints, gained: _Ints) -> _Floats:
    """`log_e_drop` after each sample; it changes with flips only, and these are few."""
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
