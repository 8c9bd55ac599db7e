"""Models of torchvision, with the normalisation of their weights' transforms."""

from __future__ import annotations

import difflib
from typing import Any

from gauntlet.bench.models.files.safe_weights import weights_only
from gauntlet.bench.models.parts.card import ModelCard
from gauntlet.bench.models.parts.errors import ModelError, short_error
from gauntlet.bench.models.sources.import_library import import_library
from gauntlet.bench.models.sources.parse_source import ModelSource
from gauntlet.bench.models.sources.source_model import SourceModel, library_digest
from gauntlet.leaderboard.results.published_figure import PublishedFigure


def load(source: ModelSource, *, pretrained: bool) -> SourceModel:
    """Load `torchvision:NAME` with its default weights, or `torchvision:NAME.WEIGHTS`; `num_classes` is for your own weights.

    Raises ModelError.
    """
    models = import_library("torchvision.models", "torchvision")
    if pretrained and source.settings:
        raise ModelError(
            f"torchvision:{source.name} with num_classes has a fresh last layer: give its weights by --weights"
        )
    name, _, tag = source.name.partition(".")
    if name not in models.list_models():
        near = difflib.get_close_matches(name, models.list_models(), n=3)
        raise ModelError(f"torchvision has no model {name!r}{'; near names: ' + ', '.join(near) if near else ''}")
    every = models.get_model_weights(name)
    if tag and tag not in every.__members__:
        raise ModelError(f"torchvision's {name} has no weights {tag!r}: use one of {', '.join(every.__members__)}")
    weights = every[tag] if tag else every.DEFAULT
    try:
        with weights_only():
            model = models.get_model(name, weights=weights if pretrained else None, **source.keywords)
        card = torchvision_card(name, weights)
    except Exception as error:  # networks, archives and foreign code may raise anything
        raise ModelError(f"torchvision cannot make {source.name!r} ({short_error(error)})") from error
    return SourceModel(model.eval(), card, library_digest("torchvision"))


def torchvision_card(name: str, weights: Any) -> ModelCard:
    """The card from the weights' transforms and `meta`."""
    transforms, facts = weights.transforms(), weights.meta
    size = int(transforms.crop_size[0])
    top1 = facts.get("_metrics", {}).get("ImageNet-1K", {}).get("acc@1")
    page = "https://docs.pytorch.org/vision/stable/models.html"
    full = f"{name}.{weights.name}"
    stated = PublishedFigure(
        model=full, data="imagenet", clean=round(top1 / 100, 6) if top1 else None, n=50_000, source=page
    )
    return ModelCard(
        name=f"torchvision:{full}",
        summary=f"torchvision's {full}",
        architecture=f"{name}, {facts.get('num_params', 0):,} parameters",
        recipe=str(facts.get("recipe", "")),
        data="imagenet",
        source=page,
        licence=str(facts.get("license", "")),
        weights=str(weights.url),
        input_size=(3, size, size),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        published=(stated,) if top1 else (),
    )
