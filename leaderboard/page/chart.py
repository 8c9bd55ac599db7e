"""A chart as coordinates: axes with ticks, points, lines and bands in the units of a drawing of fixed size.

The template draws it as SVG with the page's own colours, so that it is light and dark, and every text in it is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 440
HEIGHT: Final = 300
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 40
_TICKS: Final = 6
_LETTER: Final = 7.0
"""Width of a digit, in units of the drawing."""


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, both finite and different; logarithmic axes are positive."""

    label: str
    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """The place of a value, 0 at the low end and 1 at the high one; values beyond the ends are put there."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        return (at - low) / (high - low)

    @property
    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Round values with their texts."""
        found = _log_ticks(self.low, self.high) if self.log else []
        if len(found) > 2:
            return tuple((value, f"{value:g}") for value in found)
        step = _step((self.high - self.low) / _TICKS)
        first = math.ceil(self.low / step - 1e-9)
        values = [step * place for place in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return tuple((value, f"{value:.6g}") for value in values)


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, or the powers alone, or every second or third of them, where these are enough."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors, every in (((1, 2, 5), 1), ((1,), 1), ((1,), 2), ((1,), 3)):
        values = [factor * 10.0**power for power in range(first, last + 1) if power % every == 0 for factor in factors]
        inside = [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(inside) <= _TICKS:
            break
    return inside


def _step(least: float) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that is at least so large."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= least * (1 - 1e-9))


@dataclass(frozen=True)
class Point:
    """A marker with its name; `href` is the page of its row."""

    x: float
    y: float
    name: str
    href: str
    low: float | None = None
    """Vertical places of the ends of its interval."""
    high: float | None = None
    series: int = 0


@dataclass(frozen=True)
class Line:
    """A path in SVG's notation, with the band around it."""

    path: str
    name: str
    band: str = ""
    series: int = 0


@dataclass(frozen=True)
class Chart:
    """A chart that is ready to be drawn."""

    title: str
    words: str
    """What a reader who does not see it should know."""
    x: Axis
    y: Axis
    points: tuple[Point, ...] = ()
    lines: tuple[Line, ...] = ()
    kind: str = ""
    legend: tuple[tuple[str, str, int], ...] = ()
    """Names, pages and series of what is drawn in several colours."""
    note: str = ""
    """What points and lines are, below the chart."""

    @property
    def x_ticks(self) -> list[tuple[str, str]]:
        """Horizontal places and texts, without those that would touch the one before."""
        shown: list[tuple[str, str]] = []
        end = -math.inf
        for value, text in self.x.ticks:
            at, half = across(self.x, value), _LETTER * len(text) / 2
            if at - half >= end:
                shown.append((place(at), text))
                end = at + half + _LETTER
        return shown

    @property
    def y_ticks(self) -> list[tuple[str, str]]:
        """Vertical places and texts."""
        return [(place(up(self.y, value)), text) for value, text in self.y.ticks]


def across(axis: Axis, value: float) -> float:
    """The horizontal place of a value."""
    return LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT)


def up(axis: Axis, value: float) -> float:
    """The vertical place of a value."""
    return HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - TOP - BOTTOM)


def place(value: float) -> str:
    """A coordinate of a tick or a point, with one decimal, as short as can be."""
    return f"{value:.1f}".removesuffix(".0")


def steps(x: Axis, y: Axis, values: Sequence[float], heights: Sequence[float]) -> str:
    """The path of a step function: `heights[i]` holds from `values[i]` to `values[i + 1]`, the last one to the end of the axis.

    Places are whole units of the drawing; steps that fall on the same place are drawn as one.
    """
    return _walk(_corners(x, y, values, heights))


def band(x: Axis, y: Axis, values: Sequence[float], low: Sequence[float], high: Sequence[float]) -> str:
    """The path around a step function, along its upper ends and back along its lower ends."""
    there, back = _corners(x, y, values, high), _corners(x, y, values, low)
    return f"{_walk([*there, *reversed(back)])}z"


def _corners(x: Axis, y: Axis, values: Sequence[float], heights: Sequence[float]) -> list[tuple[int, int]]:
    """The corners of a step function from left to right, in whole units."""
    heights_at: dict[int, int] = {}
    for value, height in zip(values, heights, strict=True):
        if value <= x.high:
            heights_at[round(across(x, value))] = round(up(y, height))
    corners: list[tuple[int, int]] = []
    for at, height in heights_at.items():
        if corners and corners[-1][1] == height:
            continue
        if corners:
            corners.append((at, corners[-1][1]))
        corners.append((at, height))
    return [*corners, (WIDTH - RIGHT, corners[-1][1])]


def _walk(corners: Sequence[tuple[int, int]]) -> str:
    """The path along corners of which neighbours share a coordinate, in SVG's relative commands."""
    (x, y), *rest = corners
    parts = [f"M{x} {y}"]
    for to_x, to_y in rest:
        parts += [f"h{to_x - x}"] if to_x != x else []
        parts += [f"v{to_y - y}"] if to_y != y else []
        x, y = to_x, to_y
    return "".join(parts)
