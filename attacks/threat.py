"""The threat model: which perturbations an attacker may make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

Norm = Literal["Linf", "L2", "L1"]
NORMS: tuple[Norm, ...] = get_args(Norm)


@dataclass(frozen=True)
class ThreatModel:
    """All images within `eps` of the clean one in `norm`, inside the box [0, 1].

    `eps` is in units of the [0, 1] pixel range. Raises ValueError for an unknown norm or an eps that is not a positive,
    finite number.
    """

    norm: Norm
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"norm {self.norm!r} is not known: use one of {', '.join(NORMS)}")
        # Numbers of numpy and torch, and integers, are written differently: equal models must have equal text.
        object.__setattr__(self, "eps", float(self.eps))
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise ValueError(f"eps {self.eps!r} must be a positive, finite number, in units of the [0, 1] pixel range")
        if self.norm == "Linf" and self.eps > 1:
            raise ValueError(
                f"eps {self.eps!r} covers more than the box [0, 1] in Linf: did you mean {self.eps:g}/255?"
            )

    @classmethod
    def parse(cls, text: str | ThreatModel) -> ThreatModel:
        """Read `Linf:8/255`, `L2:0.5` (norm, colon, number or fraction); a ThreatModel is returned as it is."""
        if isinstance(text, ThreatModel):
            return text
        name, colon, number = text.partition(":")
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
        return cls(norm, eps)

    def __str__(self) -> str:
        """Canonical text: `Linf:8/255` for whole 255ths that are no short decimal (0.2 is); `parse` reads it back exactly."""
        pixels, decimal = round(self.eps * 255), repr(self.eps)
        if 0 < pixels <= 64 and pixels / 255 == self.eps and len(decimal) > len("0.0001"):
            return f"{self.norm}:{pixels}/255"
        return f"{self.norm}:{decimal}"
