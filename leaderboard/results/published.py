"""What others have published of a model: shown beside measured figures, never among them."""

from __future__ import annotations

from dataclasses import dataclass

CORRUPTIONS = "corruptions"
"""In place of a threat model: the mean accuracy under common corruptions."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """An accuracy as a paper, a leaderboard or a model's page states it. Accuracies are shares in [0, 1].

    Robust accuracy under one attack at one threat model, or the clean accuracy alone.
    """

    model: str
    """As the source calls it."""
    data: str
    """Data set, the test images where nothing else is said."""
    clean: float | None = None
    robust: float | None = None
    """None where only the clean accuracy is stated."""
    threat: str = ""
    """Canonical text of the threat model (`Linf:8/255`), or `CORRUPTIONS`; empty without a robust accuracy."""
    attack: str = ""
    """Under which `robust` was measured, in the source's words."""
    n: int = 0
    """How many samples; 0 where the source does not say."""
    source: str = ""
    """Where it stands: a paper, a table, a page."""
    note: str = ""
    """What the source adds that a reader must know."""
