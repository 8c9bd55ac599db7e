"""Models of timm (https://github.com/huggingface/pytorch-image-models), with the normalisation that they were trained with."""

from __future__ import annotations

import difflib
from typing import Any

from gauntlet.bench.models.files.safe_weights import weights_only
from gauntlet.bench.models.parts.card import ModelCard
from gauntlet.bench.models.parts.errors import ModelError, short_error
from gauntlet.bench.models.sources.import_library import import_library
from gauntlet.bench.models.sources.parse_source import ModelSource
from gauntlet.bench.models.sources.source_model import SourceModel, library_digest


def load(source: ModelSource, *, pretrained: bool) -> SourceModel:
    """Load `timm:NAME`; `num_classes` is for your own weights. Raises ModelError."""
    timm = import_library("timm", "timm")
    if pretrained and source.settings:
        raise ModelError(f"timm:{source.name} with num_classes has a fresh last layer: give its weights by --weights")
    try:
        with weights_only():
            model = timm.create_model(source.name, pretrained=pretrained, **source.keywords)
    except Exception as error:  # networks, archives and foreign code may raise anything
        known = timm.list_models(pretrained=True)
        near = [] if source.name in known else difflib.get_close_matches(source.name, known, n=3)
        hint = f"; near names: {', '.join(near)}" if near else ""
        raise ModelError(f"timm cannot make {source.name!r} ({short_error(error)}){hint}") from error
    card = timm_card(
        source.name, model.pretrained_cfg, parameters=sum(parameter.numel() for parameter in model.parameters())
    )
    return SourceModel(model.eval(), card, library_digest("timm"))


def timm_card(name: str, facts: dict[str, Any], parameters: int = 0) -> ModelCard:
    """The card from timm's `pretrained_cfg`."""
    size = facts.get("input_size")
    mean, std = facts.get("mean"), facts.get("std")
    where = facts.get("hf_hub_id") or facts.get("url") or ""
    papers = facts.get("paper_ids") or ()
    return ModelCard(
        name=f"timm:{name}",
        summary=f"timm's {name}",
        architecture=f"{facts.get('architecture') or name}{f', {parameters:,} parameters' if parameters else ''}",
        recipe=facts.get("tag") or "",
        source=", ".join([papers] if isinstance(papers, str) else papers),
        licence=facts.get("license") or "",
        weights=str(where),
        input_size=(size[0], size[1], size[2]) if size else None,
        mean=tuple(mean) if mean else None,
        std=tuple(std) if std else None,
    )
