"""Exact binomial bounds and tails from the standard library alone.

`scipy.stats` has both, but importing it takes longer than reading a stored run; the tests hold these functions to it.
"""

from __future__ import annotations

import math
from functools import cache

_EXACT = 512
"""Numbers of draws up to which tails are computed exactly."""
_BITS = 256
_FACTORIALS: list[tuple[int, int]] = [(1, 0)]
_SMALLEST = 1e-300
"""Stands for a denominator of 0 in the continued fraction."""


def beta_quantile(probability: float, a: float, b: float) -> float:
    """The `x` in 0..1 whose regularised incomplete beta function I_x(a, b) is `probability` (0..1, both excluded; a, b above 0).

    Newton's method on log I_x, kept inside a shrinking bracket. The error is below 1e-12 for a + b up to 1e6.
    """
    low, high = 0.0, 1.0
    x = a / (a + b)
    for _ in range(200):
        value, log_density = _beta(x, a, b)
        if value < probability:
            low = x
        else:
            high = x
        slope = math.exp(log_density) / value if value > 0 else math.inf
        step = math.log(value / probability) / slope if 0 < slope < math.inf else math.inf
        following = x - step
        if not low < following < high:
            following = (low + high) / 2
        if abs(following - x) <= 4e-16 * x or not low < following < high:
            return following
        x = following
    return x


def half_tail(k: int, n: int) -> float:
    """P(X >= k) for X binomial with `n` draws of probability 1/2: a ratio of whole numbers, correctly rounded."""
    if k > n:
        return 0.0
    if k <= n - k:
        return 1 - half_tail(n - k + 1, n)
    if n > _EXACT:
        return _rounded_half_tail(k, n)
    return _half_tails(n)[n - k]


@cache
def _half_tails(n: int) -> list[float]:
    """P(X >= n), P(X >= n - 1), … down to more than half of the draws. A table of many pairs asks for most of them."""
    tails, total, term = [], 0, 1
    for failures in range((n - 1) // 2 + 1):
        total += term
        term = term * (n - failures) // (failures + 1)
        tails.append(total / (1 << n))
    return tails


def binomial_tail(k: int, n: int, share: float) -> float:
    """P(X >= k) for X binomial with `n` draws of probability `share`. Raises ValueError for a share outside 0..1."""
    if not 0 <= share <= 1:
        raise ValueError(f"share {share!r} must lie between 0 and 1")
    if k <= 0:
        return 1.0
    if k > n or share == 0:
        return 0.0
    if share == 1:
        return 1.0
    likely, unlikely = math.log(share), math.log1p(-share)
    terms = (math.exp(_log_choose(n, count) + count * likely + (n - count) * unlikely) for count in range(k, n + 1))
    return min(1.0, math.fsum(terms))


def _rounded_half_tail(k: int, n: int) -> float:
    """The same from terms of `_BITS` binary digits, until they are too small to count: a relative error below n · 2^(10 − _BITS).

    With 256 digits that changes no double, unless 200 digits after those of the double are all alike.
    """
    (all_mantissa, all_exponent), (k_mantissa, k_exponent) = _factorial(n), _factorial(k)
    rest_mantissa, rest_exponent = _factorial(n - k)
    term = (all_mantissa << (2 * _BITS)) // (k_mantissa * rest_mantissa)
    exponent = all_exponent - k_exponent - rest_exponent - 2 * _BITS - n
    total, successes = 0, k
    while term:
        total += term
        term = term * (n - successes) // (successes + 1)
        successes += 1
    # The whole number is shortened to 1,000 bits at most, which a double can be made of.
    return math.ldexp(total / (1 << total.bit_length()), total.bit_length() + exponent)


def _factorial(n: int) -> tuple[int, int]:
    """n! as a mantissa of at most `_BITS` binary digits and an exponent."""
    while len(_FACTORIALS) <= n:
        mantissa, exponent = _FACTORIALS[-1]
        mantissa *= len(_FACTORIALS)
        surplus = max(mantissa.bit_length() - _BITS, 0)
        _FACTORIALS.append((mantissa >> surplus, exponent + surplus))
    return _FACTORIALS[n]


def _beta(x: float, a: float, b: float) -> tuple[float, float]:
    """I_x(a, b), and the logarithm of its derivative at `x`, 0 < x < 1."""
    log_power = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    log_density = log_power - math.log(x) - math.log1p(-x)
    if x <= (a + 1) / (a + b + 2):
        return math.exp(log_power) * _fraction(x, a, b) / a, log_density
    return 1 - math.exp(log_power) * _fraction(1 - x, b, a) / b, log_density


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of I_x(a, b), by Lentz's method (DLMF 8.17.22; it converges fast for x <= (a + 1) / (a + b + 2))."""
    c, d = 1.0, 1 / _nonzero(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 100_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d, c = 1 + even * d, 1 + even / c
        d, c = 1 / (d if abs(d) > _SMALLEST else _SMALLEST), c if abs(c) > _SMALLEST else _SMALLEST
        fraction *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1 + odd * d, 1 + odd / c
        d, c = 1 / (d if abs(d) > _SMALLEST else _SMALLEST), c if abs(c) > _SMALLEST else _SMALLEST
        fraction *= d * c
        if abs(d * c - 1) < 1e-16:
            break
    return fraction


def _nonzero(value: float) -> float:
    return value if abs(value) > _SMALLEST else _SMALLEST


def share_rose_p_value(before: tuple[int, int], now: tuple[int, int]) -> float:
    """One-sided p-value of Fisher's exact test that a share rose, from (count, size) before and now.

    The chance that as many or more of all counted items fall into the second group if they are dealt at random. Raises ValueError
    for counts that do not lie in 0..size.
    """
    if not (0 <= before[0] <= before[1] and 0 <= now[0] <= now[1]):
        raise ValueError(f"before {before!r} and now {now!r} must be counts of items and how many there are")
    total = before[0] + now[0]
    every = _log_choose(before[1] + now[1], total)
    chances = (
        math.exp(_log_choose(now[1], count) + _log_choose(before[1], total - count) - every)
        for count in range(now[0], min(total, now[1]) + 1)
        if total - count <= before[1]
    )
    return min(1.0, math.fsum(chances))


def _log_choose(size: int, count: int) -> float:
    return math.lgamma(size + 1) - math.lgamma(count + 1) - math.lgamma(size - count + 1)
