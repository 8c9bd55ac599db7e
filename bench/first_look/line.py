"""A line of a first look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

State = Literal["ok", "note", "problem"]
"""`note`: something to know before attacking. `problem`: an attack fails, or its figures mean nothing."""
STATES: Final[tuple[State, ...]] = ("ok", "note", "problem")


@dataclass(frozen=True)
class Line:
    """What was seen of one topic; lines without a topic belong to the one before."""

    topic: str
    text: str
    state: State = "ok"
