"""Settings of defenses, refused by name where they cannot be."""

from __future__ import annotations

import math


def whole_number(name: str, value: object, least: int, most: int) -> None:
    """Raise ValueError that names the setting, unless it is an int from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name}={value!r} must be a whole number from {least} to {most}")


def number(name: str, value: object, above: float = 0.0, below: float = math.inf) -> None:
    """Raise ValueError that names the setting, unless it is a number strictly between `above` and `below`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not above < value < below:
        bound = "" if below == math.inf else f" and below {below:g}"
        raise ValueError(f"{name}={value!r} must be a finite number above {above:g}{bound}")


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise ValueError that names the setting, unless it is one of the words."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(allowed)}")
