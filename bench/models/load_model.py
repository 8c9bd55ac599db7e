"""Loading of a model by its name, or from a user's factory, as a classifier that can be evaluated."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from gauntlet.bench.config.model_ref import parse_model
from gauntlet.bench.environment.stopwatch import timed
from gauntlet.bench.models.catalog import MODELS
from gauntlet.bench.models.files.load_state import load_weights
from gauntlet.bench.models.files.stored_normaliser import chosen_normaliser
from gauntlet.bench.models.parts.black_box import model_access
from gauntlet.bench.models.parts.card import Access, ModelCard, ModelEntry
from gauntlet.bench.models.parts.class_list import class_file, read_class_list
from gauntlet.bench.models.parts.classifier import Classifier, ModelError
from gauntlet.bench.models.parts.model_digest import model_digest
from gauntlet.bench.models.parts.outputs import Output
from gauntlet.bench.models.sources.catalog import open_source
from gauntlet.bench.models.sources.parse_source import parse_source
from gauntlet.bench.models.sources.source_model import SourceModel
from gauntlet.bench.registry.import_file import import_object, source_digest, working_folder_kept
from gauntlet.bench.registry.live_code import live_digest


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready for evaluation, with its identity."""

    name: str
    module: Classifier
    spec: str
    weights: str | None
    digest: str
    """Digest of parameters and buffers, the normalisation included."""
    source_digest: str
    """Digest of the code that builds the model and of its modules' code, with what their attributes hold."""
    card: ModelCard | None = None
    access: Access = "white-box"
    """What an attack may observe of the model."""
    notes: tuple[str, ...] = ()
    """Sentences on loading the weights: which prefix was removed from their keys, and what was left."""


def load_model(
    spec: str,
    *,
    weights: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    logits: str | None = None,
    binary: bool = False,
    classes: str | Path | None = None,
    device: str = "cpu",
) -> LoadedModel:
    """Load a model by a registered name, as `package.module:factory` or `path/to/file.py:factory`, or from a source
    (`robustbench:…`, `timm:…`, `torchvision:…`, `hf:…`, `onnx:FILE`, `torchscript:FILE`, `export:FILE`,
    `blackbox:FILE.py:FUNCTION`). Weights and settings may be part of the name, as in `net.py:build@best.pth(mean=0.5)`; arguments
    take precedence.

    The factory takes no arguments and returns a module. `weights` is a .safetensors file, or a torch file, which is loaded
    with weights_only=True; keys and shapes must fit, a normaliser beside the network is used where no mean and std are given, and
    the model is then set to eval mode. Without `weights` the model
    keeps the mode of its factory, and `check_model` refuses training mode, so that a model whose author forgot to switch is
    not evaluated in another state. `mean` and `std`, per channel, normalise images in [0, 1] before the model; default those
    of the source's card. `logits` names the entry of the model's output with its logits, and a `binary` model returns one logit
    for two classes (`gauntlet.bench.models.parts.outputs`). `classes` is a file with the classes that the model may predict
    (`gauntlet.bench.models.parts.class_list`). A registered model, or one of a source, has no card with other
    weights.

    Raises LookupError for an unknown name, ConfigError for settings that are not understood, else ModelError or ImportSpecError.
    """
    named = parse_model(spec)
    name, spec, weights = spec, named.spec, weights or named.weights
    if mean is None and std is None:
        mean, std = named.mean, named.std
    opened = _opened(spec, pretrained=weights is None)
    model, card, remarks = opened.model, opened.card, opened.remarks
    notes: tuple[str, ...] = ()
    if weights is not None:
        # The claims of the card hold for its own weights only.
        loaded = load_weights(model, Path(weights))
        model.eval()
        stored, flags = chosen_normaliser(loaded.normalisers, mean, std, Path(weights).name.partition("#")[0])
        if stored is not None:
            mean, std = stored.mean, stored.std
        remarks, notes = (*remarks, *loaded.remarks, *flags), loaded.notes
    if mean is None and std is None:
        mean, std = card.mean, card.std
    output = Output(logits or named.logits, binary or bool(named.binary))
    classes = classes or named.classes
    listed = () if classes is None else read_class_list(class_file(str(classes))[0])
    module = Classifier(model, mean, std, output, listed).to(device)
    module.remarks, module.input_size = remarks, card.input_size
    with timed("hash"):
        digest = model_digest(module)
        code = live_digest({"source": opened.digest, "model": model})
    return LoadedModel(
        name=name,
        module=module,
        spec=spec,
        weights=None if weights is None else str(weights),
        digest=digest,
        source_digest=code,
        # Nor do they hold where classes are taken out.
        card=card if card.name and weights is None and not listed else None,
        access=model_access(model),
        notes=notes,
    )


def _opened(spec: str, *, pretrained: bool) -> SourceModel:
    """The model of `spec`; an unregistered model has a card without a name."""
    if spec in MODELS:
        entry = MODELS.get(spec)
        return SourceModel(_built(spec, entry.build), entry.card, _registered_digest(entry))
    source = parse_source(spec)
    if source is not None:
        return open_source(source, pretrained=pretrained)
    if ":" in spec:
        imported = import_object(spec)
        # A model built on import is shared: other weights must not be loaded into it.
        shared = isinstance(imported, nn.Module) and not pretrained
        model = _built(spec, copy.deepcopy(imported) if shared else imported)
        return SourceModel(model, ModelCard(name="", summary=""), source_digest(spec))
    if spec.endswith((".th", ".safetensors", ".ckpt")):
        raise ModelError(f"model {spec!r} is a file of weights: write --model FILE.py:FACTORY --weights {spec}")
    if spec.endswith(".py") or "/" in spec:
        raise ModelError(f"model {spec!r} is a file: add the function that builds the model, {spec}:NAME")
    MODELS.get(spec)  # raises, with near matches
    raise AssertionError(spec)


def _registered_digest(entry: ModelEntry) -> str:
    return source_digest(entry.source) if entry.source else live_digest({"build": entry.build})


def _built(spec: str, factory: object) -> nn.Module:
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise ModelError(
            f"{spec!r} is a {type(factory).__name__}: name a function without arguments that returns the model"
        )
    try:
        with working_folder_kept():
            model = factory()
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"building {spec!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec!r} returned a {type(model).__name__}: return a torch.nn.Module")
    return model
