"""A user's function as a black-box model, whose outputs alone are observed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gauntlet.bench.models.parts.black_box import BlackBox, QueryCounter
from gauntlet.bench.models.parts.card import ModelCard
from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.bench.models.sources.parse_source import ModelSource
from gauntlet.bench.models.sources.source_model import SourceModel
from gauntlet.bench.registry.import_file import import_object, source_digest

_made: dict[str, QueryCounter] = {}
"""Query counters of the functions in this process: a black box that is loaded again continues its count."""


def load(source: ModelSource, *, pretrained: bool) -> SourceModel:
    """Load `blackbox:FILE.py:FUNCTION`, with settings of `BlackBox`. Raises ModelError and ImportSpecError."""
    if not pretrained:
        raise ModelError(f"blackbox:{source.name} has its weights behind the function: leave out --weights")
    settings: dict[str, Any] = source.keywords
    model = BlackBox(import_object(source.name), name=source.title, **settings)
    model.queries = shared_queries(source.name, model.queries)
    card = ModelCard(name=source.title, summary="a function of images", access=source.access)
    return SourceModel(model, card, source_digest(source.name))


def shared_queries(name: str, fresh: QueryCounter) -> QueryCounter:
    """The query counter of this name in this process, with the limit of `fresh`."""
    file, _, function = name.rpartition(":")
    known = _made.setdefault(f"{Path(file).resolve()}:{function}", fresh)
    known.limit = fresh.limit
    return known
