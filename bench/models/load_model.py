"""From a model's name, or a factory of the user's, to a classifier that can be evaluated."""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from gauntlet.bench.models.catalog import MODELS
from gauntlet.bench.models.files.load_state import load_weights
from gauntlet.bench.models.parts.black_box import model_access
from gauntlet.bench.models.parts.card import Access, ModelCard, ModelEntry
from gauntlet.bench.models.parts.classifier import Classifier, ModelError
from gauntlet.bench.models.parts.model_digest import model_digest
from gauntlet.bench.models.sources.catalog import open_source
from gauntlet.bench.models.sources.parse_source import parse_source
from gauntlet.bench.models.sources.source_model import SourceModel
from gauntlet.bench.registry.import_file import import_object, source_digest


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for evaluation, and what identifies it."""

    name: str
    module: Classifier
    spec: str
    weights: str | None
    digest: str
    """Of parameters and buffers, the normalisation included."""
    source_digest: str
    """Of the file that builds it; empty for a function typed in an interactive session."""
    card: ModelCard | None = None
    access: Access = "white-box"
    """What an attack may see of it."""


def load_model(
    spec: str,
    *,
    weights: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    device: str = "cpu",
) -> LoadedModel:
    """Build a model: a registered name, `package.module:factory`, `path/to/file.py:factory`, or a name that says where the
    model comes from (`robustbench:…`, `timm:…`, `torchvision:…`, `hf:…`, `onnx:FILE`, `blackbox:FILE.py:FUNCTION`).

    The factory takes no arguments and returns a module. `weights` is a .safetensors file, or a torch file, which is
    loaded with weights_only=True; they are loaded strictly, and the model is set to eval mode, since it is fresh from
    its constructor. Without them its mode is left as the factory made it, and `check_model` refuses one in training
    mode: a model that its author forgot to switch is not silently evaluated in another state. `mean` and `std`, per
    channel, normalise images in [0, 1] before the model; without them, those of the source's card do. A registered model, or
    one of a source, with other weights has no card.

    Raises LookupError for an unknown name, and ModelError or ImportSpecError for all else.
    """
    opened = _opened(spec, pretrained=weights is None)
    model, card, remarks = opened.model, opened.card, opened.remarks
    if mean is None and std is None:
        mean, std = card.mean, card.std
    if weights is not None:
        # The card's claims are those of its own weights only.
        remarks = (*remarks, *load_weights(model, Path(weights)))
        model.eval()
    module = Classifier(model, mean, std).to(device)
    module.remarks, module.input_size = remarks, card.input_size
    return LoadedModel(
        name=spec,
        module=module,
        spec=spec,
        weights=None if weights is None else str(weights),
        digest=model_digest(module),
        source_digest=opened.digest,
        card=card if card.name and weights is None else None,
        access=model_access(model),
    )


def _opened(spec: str, *, pretrained: bool) -> SourceModel:
    """The model that `spec` names, with a card without a name where nothing is known of it."""
    if spec in MODELS:
        entry = MODELS.get(spec)
        return SourceModel(_built(spec, entry.build), entry.card, _registered_digest(entry))
    source = parse_source(spec)
    if source is not None:
        return open_source(source, pretrained=pretrained)
    if ":" in spec:
        imported = import_object(spec)
        # A model made on import is shared by all who name it: other weights must not reach them.
        shared = isinstance(imported, nn.Module) and not pretrained
        model = _built(spec, copy.deepcopy(imported) if shared else imported)
        return SourceModel(model, ModelCard(name="", summary=""), source_digest(spec))
    if spec.endswith((".pt", ".pth", ".th", ".safetensors", ".ckpt")):
        raise ModelError(f"model {spec!r} names weights only: write --model FILE.py:FACTORY --weights {spec}")
    if spec.endswith(".py") or "/" in spec:
        raise ModelError(f"model {spec!r} names a file only: add the function that builds the model, {spec}:NAME")
    MODELS.get(spec)  # raises, with near matches
    raise AssertionError(spec)


def _registered_digest(entry: ModelEntry) -> str:
    if entry.source:
        return source_digest(entry.source)
    build: Any = entry.build
    while isinstance(build, functools.partial):
        build = build.func
    try:
        file = inspect.getsourcefile(build if hasattr(build, "__code__") or inspect.isclass(build) else type(build))
        return hashlib.sha256(Path(file or "").read_bytes()).hexdigest()
    except (OSError, TypeError):  # typed in an interactive session: the weights' digest is all there is
        return ""


def _built(spec: str, factory: object) -> nn.Module:
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise ModelError(
            f"{spec!r} is a {type(factory).__name__}: name a function without arguments that returns the model"
        )
    try:
        model = factory()
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"building {spec!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec!r} returned a {type(model).__name__}: return a torch.nn.Module")
    return model
