"""What a page shows: the results, and what readers want to know beside them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gauntlet.leaderboard.page.details import RowDetails
from gauntlet.leaderboard.report.markdown_writer import RunContext
from gauntlet.leaderboard.report.model_table import ModelDescription
from gauntlet.leaderboard.results.published_figure import PublishedFigure
from gauntlet.leaderboard.results.summary import CellSummary

RowKey = tuple[str, str, str, str, str]
"""As `LeaderboardRow.key`."""

_LONGEST_ANCHOR = 60


@dataclass(frozen=True)
class PageContent:
    """Everything that the page is made of."""

    results: Sequence[CellSummary]
    context: RunContext
    published: Sequence[tuple[str, PublishedFigure]] = ()
    """Published figures, each with the name of its model in the tables."""
    models: Mapping[str, ModelDescription] = field(default_factory=dict)
    """Descriptions by the models' names in the tables."""
    details: Callable[[RowKey], RowDetails] = lambda key: RowDetails()
    """What summaries do not have, for each row."""
    commands: Mapping[RowKey, str] = field(default_factory=dict)
    """The command that repeats a row; where it is missing, that of the context."""


def anchor(key: RowKey) -> str:
    """The name of a row's page within the file: readable, of letters, digits and `._-` only, and different for different rows."""
    model, defense, threat, _, _ = key
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", f"{model}-{defense}-{threat}").strip("-.")[:_LONGEST_ANCHOR]
    digest = hashlib.sha256(repr(key).encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return f"row-{readable}-{digest}"
