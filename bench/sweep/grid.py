"""The grid of a sweep: the combinations of an attack's settings to run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.registry.settings import Named, Setting, parse_named

EPS = "eps"
"""The name under which the threat model's eps is swept."""
_MOST = 500

Kind = Literal["budget", "choice", "eps"]


class SweepError(ValueError):
    """A sweep cannot be run; the message names the option and says what to do."""


@dataclass(frozen=True)
class Axis:
    """A setting and its values, at least two; numbers ascend."""

    name: str
    values: tuple[Setting, ...]

    @property
    def kind(self) -> Kind:
        """`eps`; `budget` for whole numbers, where more is more work (steps, restarts, queries); else `choice`."""
        if self.name == EPS:
            return "eps"
        whole = all(isinstance(value, int) and not isinstance(value, bool) for value in self.values)
        return "budget" if whole else "choice"


def parse_axis(text: str) -> Axis:
    """Parse `steps=5,10,20` or `loss=ce,cw`; values of eps may be fractions. Raises SweepError."""
    name, equals, rest = text.partition("=")
    name, words = name.strip(), [word.strip() for word in rest.split(",") if word.strip()]
    if not equals or not name.isidentifier():
        raise SweepError(f"--over {text!r} is not understood: write NAME=VALUE,VALUE such as steps=5,10,20")
    values = [_value(text, name, word) for word in words]
    twice = next((word for word, value in zip(words, values, strict=True) if values.count(value) > 1), None)
    if twice is not None:
        raise SweepError(f"--over {text!r} has the value {twice} twice: leave it out once")
    if len(values) < 2:
        raise SweepError(f"--over {text!r} needs at least two different values, and has {', '.join(words) or 'none'}")
    numbers = all(isinstance(value, int | float) for value in values)
    return Axis(name, tuple(sorted(values)) if numbers else tuple(values))  # type: ignore[type-var]


def _value(text: str, name: str, word: str) -> Setting:
    """One of the values of an axis. Raises SweepError that names it."""
    try:
        if name == EPS:
            return ThreatModel.parse(f"L2:{word}").eps
        return parse_named(f"attack({name}={word})").keywords[name]
    except (ValueError, KeyError):
        kind = "a number or a fraction such as 8/255" if name == EPS else "a number, True, False, None or a word"
        raise SweepError(f"--over {text!r}: the value {word!r} of {name} is not {kind}") from None


@dataclass(frozen=True)
class Point:
    """A combination of values, with the attack and threat model that are run for it."""

    setting: tuple[tuple[str, Setting], ...]
    """Names and values, in the order of the axes."""
    attack: str
    threat: str

    @property
    def values(self) -> dict[str, Setting]:
        """The values by name."""
        return dict(self.setting)


def grid(attack: str, threat: str, axes: Sequence[Axis]) -> list[Point]:
    """All combinations of the axes' values; the last axis varies fastest.

    `attack`: an attack with its fixed settings. `threat`: a threat model; an axis `eps` replaces its eps, which may then be left
    out. Raises SweepError, and ValueError for texts that cannot be parsed.
    """
    named = parse_named(attack)
    names = [axis.name for axis in axes]
    if not names:
        raise SweepError("nothing to sweep: add --over NAME=VALUE,VALUE such as --over steps=5,10,20")
    for name in names:
        if names.count(name) > 1:
            raise SweepError(f"--over {name} is given twice: give all of its values in one option")
        if name in named.keywords:
            raise SweepError(f"{name!r} is both in --attack {attack!r} and in --over: leave it out of one of them")
    number = 1
    for axis in axes:
        number *= len(axis.values)
    if number > _MOST:
        raise SweepError(f"--over asks for {number} settings, more than {_MOST}: give fewer values")
    points = []
    for values in itertools.product(*(axis.values for axis in axes)):
        chosen = dict(zip(names, values, strict=True))
        settings = {**named.keywords, **{name: value for name, value in chosen.items() if name != EPS}}
        points.append(
            Point(
                tuple(chosen.items()),
                str(Named(named.name, tuple(sorted(settings.items())))),
                _threat(threat, chosen.get(EPS)),
            )
        )
    return points


def _threat(text: str, eps: Setting | None) -> str:
    norm, _, rest = text.partition(":")
    if eps is None:
        return str(ThreatModel.parse(text))
    _, goal_follows, goal = rest.partition(":")
    return str(ThreatModel.parse(f"{norm}:{eps!r}{goal_follows}{goal}"))


def settings_text(point: Point) -> str:
    """`steps=5, restarts=2`."""
    return ", ".join(f"{name}={value}" for name, value in point.setting)
