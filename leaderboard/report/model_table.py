"""The models of a leaderboard as their authors describe them, and models that have the same weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from gauntlet.leaderboard.report import formatting
from gauntlet.leaderboard.report.csv_writer import TEXT, csv_text, typed_frame
from gauntlet.leaderboard.results.escape import markdown as safe
from gauntlet.leaderboard.results.summary import CellSummary

TITLES: Final[Mapping[str, str]] = {
    "model": "model",
    "name": "name",
    "paper": "paper",
    "architecture": "architecture",
    "extra_data": "extra data",
    "link": "link",
    "licence": "licence",
}
"""Headings of the columns."""


@dataclass(frozen=True)
class ModelDescription:
    """A model as it is described; empty texts are not known."""

    model: str
    """Its name in the tables."""
    name: str = ""
    paper: str = ""
    architecture: str = ""
    extra_data: str = ""
    """Data that it was trained on beyond the training set."""
    link: str = ""
    licence: str = ""


def models_csv(descriptions: Sequence[ModelDescription]) -> str:
    """The text of `models.csv`: a line for each description."""
    return csv_text(typed_frame([asdict(one) for one in descriptions], dict.fromkeys(TITLES, TEXT)))


def models_section(descriptions: Sequence[ModelDescription], twins: Iterable[str]) -> str:
    """A section of the Markdown report; empty where there is nothing to say."""
    parts = []
    if descriptions:
        columns = [name for name in TITLES if name == "model" or any(getattr(one, name) for one in descriptions)]
        lines = [[TITLES[name] for name in columns], [":--"] * len(columns)]
        lines += [[safe(getattr(one, name)) or "–" for name in columns] for one in descriptions]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    if sentences := [f"- {safe(line)}" for line in twins]:
        parts.append("\n".join(sentences))
    return "\n\n".join(["## Models", *parts]) + "\n" if parts else ""


def same_weights(results: Iterable[CellSummary]) -> list[str]:
    """A sentence for each group of models that have the same weights, by their digest."""
    models: dict[str, dict[str, None]] = {}
    for result in results:
        if result.weights:
            models.setdefault(result.weights, {})[result.cell.model] = None
    return [
        f"{formatting.some(list(names))} have the same weights ({digest[:12]}): one model under {len(names)} names"
        for digest, names in models.items()
        if len(names) > 1
    ]
