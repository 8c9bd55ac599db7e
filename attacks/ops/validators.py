"""Validators of settings. Each raises a ValueError that names the setting, its value and what it must be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real


def whole_number(name: str, value: object, least: int, most: int | None = None) -> None:
    """An int (no bool) of at least `least` and, where `most` is given, at most `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}={value!r} must be a whole number {bounds}")


def number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    below: float | None = None,
    least: float | None = None,
    most: float | None = None,
) -> None:
    """A finite real number (no bool) within the bounds that are given; `above` and `below` are exclusive."""
    words = (("above", above), ("at least", least), ("below", below), ("at most", most))
    bounds = " and".join(f" {word} {bound:g}" for word, bound in words if bound is not None)
    real = float(value) if not isinstance(value, bool) and isinstance(value, Real) else math.nan
    fits = (
        math.isfinite(real)
        and (above is None or real > above)
        and (below is None or real < below)
        and (least is None or real >= least)
        and (most is None or real <= most)
    )
    if not fits:
        raise ValueError(f"{name}={value!r} must be a finite number{bounds and ','}{bounds}")


def positive(name: str, value: object) -> None:
    """A finite number above 0."""
    number(name, value, above=0)


def share(name: str, value: object) -> None:
    """A number above 0 and at most 1."""
    number(name, value, above=0, most=1)


def boolean(name: str, value: object) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r} must be True or False")


def one_of(name: str, value: object, allowed: Iterable[str]) -> None:
    """One of the words in `allowed`."""
    words = tuple(allowed)
    if value not in words:
        raise ValueError(f"{name}={value!r} is not known: use one of {', '.join(words)}")
