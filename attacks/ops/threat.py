"""The threat model: the perturbations that an attacker may make, and the attacker's goal."""

from __future__ import annotations

import hashlib
import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, SupportsIndex, get_args

if TYPE_CHECKING:  # reading a configuration must not import torch
    from torch import Tensor

Norm = Literal["Linf", "L2", "L1"]
NORMS: tuple[Norm, ...] = get_args(Norm)
NEXT = "next"
"""The target `next`: the class after the label."""
RANDOM = "random"
"""The target `random`: another class, drawn for each sample."""
LINF_SLACK = 2.0**-23
"""Rounding error of a pixel's change in float32."""
RELATIVE_SLACK = 2.0**-20
"""Rounding error of an L2 or L1 norm, relative to eps: a few units in the last place of float32."""


@dataclass(frozen=True, repr=False)
class ThreatModel:
    """All images within `eps` of the clean one in `norm`, inside the box [0, 1].

    `eps` is in units of the [0, 1] pixel range. `target` is the adversary's goal (Carlini et al. 2019, arXiv 1902.06705,
    section 2.2): empty, any class but the label; a class number as text; `next`, the class after the label, modulo the
    number of classes; or `random`, one of the other classes, drawn for each sample by its id alone.

    Raises ValueError for an unknown norm, an eps that is not a positive, finite number, or an unknown target, and TypeError
    for a target that is neither text nor a whole number.
    """

    norm: Norm
    eps: float
    target: str = ""

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"norm {self.norm!r} is not known: use one of {', '.join(NORMS)}")
        # Numbers of numpy and torch, and integers, have another repr: equal threat models must have equal text.
        object.__setattr__(self, "eps", float(self.eps))
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise ValueError(f"eps {self.eps!r} must be a positive, finite number, in units of the [0, 1] pixel range")
        if self.norm == "Linf" and self.eps > 1:
            raise ValueError(
                f"eps {self.eps!r} covers more than the box [0, 1] in Linf: did you mean {self.eps:g}/255?"
            )
        object.__setattr__(self, "target", _goal(self.target))

    @classmethod
    def parse(cls, text: str | ThreatModel) -> ThreatModel:
        """Read `Linf:8/255`, `L2:0.5:target=3` or `L2:0.5:target=next`: the norm, a number or fraction, and the target, if
        there is one. A ThreatModel is returned unchanged. Raises ValueError for other text."""
        if isinstance(text, ThreatModel):
            return text
        name, colon, rest = text.partition(":")
        number, goal_follows, goal = rest.partition(":")
        norms = {norm.lower(): norm for norm in NORMS}
        norm = norms.get(name.strip().lower())
        if not colon or norm is None:
            raise ValueError(
                f"threat model {text!r} is not understood: write NORM:EPS with NORM one of {', '.join(NORMS)}, "
                "for instance Linf:8/255"
            )
        try:
            eps = float(Fraction(number.strip().replace(" ", "")))
        except (ValueError, ArithmeticError):
            raise ValueError(
                f"eps {number.strip()!r} in threat model {text!r} is not a number: write 0.03 or 8/255"
            ) from None
        key, _, target = (part.strip() for part in goal.partition("="))
        if goal_follows and (key.lower() != "target" or not target):
            raise ValueError(
                f"goal {goal.strip()!r} in threat model {text!r} is not understood: write target=CLASS or target={NEXT} "
                f"or target={RANDOM}, for instance Linf:8/255:target=3"
            )
        return cls(norm, eps, target)

    def targets(self, labels: Tensor, classes: int, ids: Sequence[str] = ()) -> Tensor:
        """The class to reach for each sample, int64 (N,), for `labels` and `ids` (N,) and a model with that many classes.

        In an untargeted attack, the label. A sample whose label is the target cannot be attacked. Only `random` uses `ids`.
        Raises ValueError if the model has no such class, or ids are needed and not given.
        """
        if not self.target:
            return labels
        if self.target == NEXT:
            return (labels + 1) % classes
        if self.target == RANDOM:
            if len(ids) != len(labels):
                raise ValueError(
                    f"{len(ids)} ids for {len(labels)} labels: target {RANDOM} depends on them, give one for each"
                )
            return (labels + 1 + labels.new_tensor([_draw(one, classes - 1) for one in ids])) % classes
        target = int(self.target)
        if target >= classes:
            raise ValueError(
                f"target {target} of threat model {self} is not a class of the model, which has {classes}: "
                f"use 0 to {classes - 1}, {NEXT} or {RANDOM}"
            )
        return labels.new_full(labels.shape, target)

    def __repr__(self) -> str:
        # Part of the keys of stored results: without a target the text has no target.
        goal = f", target={self.target!r}" if self.target else ""
        return f"ThreatModel(norm={self.norm!r}, eps={self.eps!r}{goal})"

    def __str__(self) -> str:
        """Canonical text, which `parse` reads back exactly: `Linf:8/255`, or a decimal if eps is no multiple of 1/255 or a
        short decimal such as 0.2; then the target, `:target=3`, if there is one."""
        pixels, decimal = round(self.eps * 255), repr(self.eps)
        if 0 < pixels <= 64 and pixels / 255 == self.eps and len(decimal) > len("0.0001"):
            decimal = f"{pixels}/255"
        return f"{self.norm}:{decimal}" + (f":target={self.target}" if self.target else "")


def _draw(name: str, most: int) -> int:
    """A number below `most`, from a sample's id alone: every attack, seed and model faces the same target."""
    return int.from_bytes(hashlib.blake2b(f"target\0{name}".encode(), digest_size=8).digest(), "little") % most


def _goal(target: str | SupportsIndex) -> str:
    """The canonical text of `target`."""
    text = target.strip().lower() if isinstance(target, str) else str(operator.index(target))
    if re.fullmatch("[0-9]+", text):
        return str(int(text))
    if text not in ("", NEXT, RANDOM):
        raise ValueError(
            f"target {target!r} is not understood: give the number of a class, such as 3, or {NEXT} or {RANDOM}"
        )
    return text


def limit(threat: ThreatModel) -> float:
    """The largest measured distance that counts as inside the ball: eps plus the slack for rounding."""
    return threat.eps + (LINF_SLACK if threat.norm == "Linf" else LINF_SLACK + RELATIVE_SLACK * threat.eps)
