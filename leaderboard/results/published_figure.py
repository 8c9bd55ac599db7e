"""Figures that others have published for a model: shown beside measured figures, never mixed with them."""

from __future__ import annotations

from dataclasses import dataclass

CORRUPTIONS = "corruptions"
"""Value of `PublishedFigure.threat` for the mean accuracy under common corruptions."""


@dataclass(frozen=True, kw_only=True)
class PublishedFigure:
    """An accuracy as stated by a paper, a leaderboard or a model's page. Accuracies are shares in [0, 1].

    Robust accuracy under one attack and threat model, or the clean accuracy alone.
    """

    model: str
    """Name of the model in the source."""
    data: str
    """Data set; its test images unless stated otherwise."""
    clean: float | None = None
    robust: float | None = None
    """None if only the clean accuracy is stated."""
    threat: str = ""
    """Canonical text of the threat model (`Linf:8/255`), or `CORRUPTIONS`; empty without a robust accuracy."""
    attack: str = ""
    """The attack behind `robust`, in the source's words."""
    n: int = 0
    """Number of samples; 0 if the source does not state it."""
    source: str = ""
    """The paper, table or page."""
    note: str = ""
    """A remark of the source that a reader needs."""
