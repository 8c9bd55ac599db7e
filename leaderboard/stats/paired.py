"""The drop between two sets of outcomes on the same samples: its upper bound, and the number of samples that would decide."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.special import betainc, betaincinv, ndtri


def drop_upper(lost: float, gained: float, n: float, confidence: float) -> float:
    """One-sided upper confidence bound of the drop: the larger of Tango's bound and that of Clopper and Pearson.

    Tango's bound alone errs up to 1.7 points too often if nearly all flips go one way (at confidence 95 % and a true drop of 2
    points without gains, exactly enumerated: in 6.7 % of cases at n = 134, in 6.2 % at some n above 200). In that case the drop
    is close to the share of lost samples, for which Clopper and Pearson's bound of lost - gained out of `n` is exact. With a few
    gains Tango's bound is larger. The larger of both errs in at most 5.4 % of cases at a drop of 2 points, from 500 samples on
    in at most 5.1 % (docs/ci.md has other drops). Without a flip it is 1 - (1 - confidence)^(1/n). Raises ValueError as
    `tango_upper` does.
    """
    tango = tango_upper(lost, gained, n, confidence)
    more = max(lost - gained, 0)
    return max(tango, float(betaincinv(more + 1, n - more, confidence))) if more < n else 1.0


def tango_upper(lost: float, gained: float, n: float, confidence: float) -> float:
    """One-sided upper confidence bound of the drop, the true share of lost samples minus that of gained ones, in -1..1.

    `lost` of `n` samples succeeded before and fail now, `gained` failed before and succeed now; counts need not be whole, which
    allows expected counts. Tango's score method (Tango, Statistics in Medicine 17, 1998, 891-908): the largest drop that the
    score test does not reject, where the share of gained samples is estimated under that drop. Unlike bounds from an estimated
    variance (Wald's, Agresti and Min's) it does not vanish if hardly any sample flips: without a flip it is z²/(n + z²).

    Raises ValueError for counts that do not fit `n`, and for a confidence outside 0.5..1.
    """
    _check_counts(lost, gained, n)
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence {confidence!r} must lie above 0.5 and below 1")
    z = float(ndtri(confidence))

    def accepted(drop: float) -> bool:
        return n * drop - (lost - gained) < z * _deviation(lost, gained, n, drop)

    # The observed drop is always accepted, and so are larger ones up to the bound.
    low, high = (lost - gained) / n, 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if accepted(middle) else (low, middle)
    return high


def _deviation(lost: float, gained: float, n: float, drop: float) -> float:
    """Standard deviation of lost - gained if the true difference is `drop`, by maximum likelihood (Tango, section 3)."""
    b = (2 * n - lost + gained) * drop - lost - gained
    c = -gained * drop * (1 - drop)
    share_gained = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    return math.sqrt(max(n * (2 * share_gained + drop * (1 - drop)), 0.0))


def drop_p_value(lost: float, gained: float) -> float:
    """One-sided exact McNemar p-value of a drop (McNemar, Psychometrika 12, 1947), for counts that need not be whole.

    For whole counts it equals `proportions.mcnemar(before, now, "greater").p_value`.
    """
    return float(betainc(lost, gained + 1, 0.5)) if lost > 0 else 1.0


def needed_n(lost: int, gained: int, n: int, *, margin: float, alpha: float, tests: int = 1) -> int:
    """The smallest number of samples that decides if flips occur at exactly the observed rates.

    It decides for *held* if the upper bound of the drop at level `alpha` is below `margin` (a share above 0), and for a *drop*
    if the p-value is below alpha / tests, which Holm's correction requires of the first of `tests`. The expected counts are
    taken as the outcome, so that with that many samples the chance of a decision is about one half. `n` itself if it decides
    already. Raises ValueError as `tango_upper` does, and for a margin outside 0..1.
    """
    _check_counts(lost, gained, n)
    if not 0 < margin < 1:
        raise ValueError(f"margin {margin!r} must be a share of the samples above 0 and below 1, such as 0.02")

    def decides(samples: int) -> bool:
        times = samples / n
        held = drop_upper(lost * times, gained * times, samples, 1 - alpha) < margin
        return held or drop_p_value(lost * times, gained * times) < alpha / tests

    return _least(decides, n)


def _least(decides: Callable[[int], bool], start: int) -> int:
    """The smallest number from `start` on for which `decides` is true, if it stays true from there on."""
    if decides(start):
        return start
    low, high = start, 2 * start
    while not decides(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def _check_counts(lost: float, gained: float, n: float) -> None:
    if not (n > 0 and lost >= 0 and gained >= 0 and lost + gained <= n * (1 + 1e-12)):
        raise ValueError(
            f"lost {lost!r} and gained {gained!r} must be counts of different samples out of n {n!r}, n above 0"
        )
