"""Image classifiers of the Hugging Face hub, or of a folder with the same files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gauntlet.bench.models.files.local_files import check_file, file_sha256
from gauntlet.bench.models.parts.card import ModelCard
from gauntlet.bench.models.parts.errors import ModelError, short_error
from gauntlet.bench.models.sources.import_library import import_library
from gauntlet.bench.models.sources.parse_source import ModelSource, is_folder
from gauntlet.bench.models.sources.source_model import SourceModel, library_digest
from gauntlet.leaderboard.results.sealed_json import parse_json
from gauntlet.leaderboard.results.user_text import read_user_text

_FILES = (
    *("config.json", "preprocessor_config.json", "processor_config.json", "README.md"),
    *("*.safetensors", "*.safetensors.index.json"),
)
_SHOWN = 3


def load(source: ModelSource, *, pretrained: bool) -> SourceModel:
    """Load `hf:OWNER/REPOSITORY[@REVISION]`, or `hf:./FOLDER` without a network. No code of the repository is run.

    Raises ModelError, also if weights are missing, which the library would draw at random.
    """
    folder = Path(source.name).expanduser() if is_folder(source.name) else _fetched(source.name)
    config = _json(folder / "config.json", "configuration")
    if "auto_map" in config:
        raise ModelError(f"hf:{source.name} needs its own code (auto_map in its config.json), which is not run")
    files = sorted(folder.glob("*.safetensors"))
    if pretrained and not files:
        raise ModelError(
            f"hf:{source.name} has no .safetensors file: load it once in an environment where you trust it, and save it with "
            "model.save_pretrained(FOLDER)"
        )
    for file in files:
        check_file(file, "weights file")
    transformers = import_library("transformers", "huggingface")
    with _quiet(transformers):
        model = _model(transformers, folder, source.name, pretrained=pretrained)
    card = hugging_face_card(source.name, config, read_processor_config(folder), _licence(folder))
    if pretrained:
        card = _with_weights(card, files)
    return SourceModel(model.float().eval(), card, library_digest("transformers"))


@dataclass(frozen=True)
class ProcessorConfig:
    """The preprocessing of a repository: image size, and normalisation of images in [0, 1]."""

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def read_processor_config(folder: Path) -> ProcessorConfig:
    """Read `preprocessor_config.json`; missing settings are None.

    The library scales images from 0 to 255 by `rescale_factor`, may subtract 1, and normalises; here these steps become one
    mean and std. Raises ModelError for an unreadable file and invalid numbers.
    """
    facts: Mapping[str, Any] = {}
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            facts = _json(folder / name, "preprocessing")
            facts = facts.get("image_processor", facts)
            break
    try:
        factor = 255 * float(facts.get("rescale_factor", 1 / 255)) if facts.get("do_rescale", True) else 255.0
        offset = 1.0 if facts.get("rescale_offset") else 0.0
        normalises = facts.get("do_normalize", True) and "image_mean" in facts and "image_std" in facts
        means = [float(value) for value in facts["image_mean"]] if normalises else [0.0]
        stds = [float(value) for value in facts["image_std"]] if normalises else [1.0]
        mean = tuple(round((value + offset) / factor, 9) for value in means)
        std = tuple(round(value / factor, 9) for value in stds)
        crop = facts.get("crop_size") if facts.get("do_center_crop") else None
        size = _size(crop or facts.get("size"))
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(f"the preprocessing in {str(folder)!r} is not understood: {error}") from error
    identity = set(mean) == {0.0} and set(std) == {1.0}
    return ProcessorConfig(size, None if identity else mean, None if identity else std)


def hugging_face_card(name: str, config: Mapping[str, Any], prepared: ProcessorConfig, licence: str = "") -> ModelCard:
    """The card from the files of a repository."""
    size = prepared.size or _size(config.get("image_size"))
    channels = config.get("num_channels", 3)
    return ModelCard(
        name=f"hf:{name}",
        summary=f"{config.get('model_type', 'an image classifier')} of {name}",
        architecture=", ".join(config.get("architectures") or ()),
        source="" if is_folder(name) else f"https://huggingface.co/{name.partition('@')[0]}",
        licence=licence,
        input_size=(int(channels), *size) if size else None,
        mean=prepared.mean,
        std=prepared.std,
    )


def _fetched(name: str) -> Path:
    hub = import_library("huggingface_hub", "huggingface")
    repository, _, revision = name.partition("@")
    try:
        snapshot = hub.snapshot_download(repository, revision=revision or None, allow_patterns=list(_FILES))
    except Exception as error:  # the network, the hub's answers
        raise ModelError(
            f"hf:{name} cannot be downloaded ({short_error(error)}): without a network, put its files into a folder and write "
            "hf:./FOLDER"
        ) from error
    return Path(snapshot)


def _model(transformers: Any, folder: Path, name: str, *, pretrained: bool) -> nn.Module:
    auto = transformers.AutoModelForImageClassification
    try:
        if not pretrained:
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            fresh: nn.Module = auto.from_config(config)
            return fresh
        model: nn.Module
        model, report = auto.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # files of others may raise anything
        why = short_error(error)
        raise ModelError(f"transformers cannot make an image classifier of hf:{name}: {why}") from error
    missing = sorted(str(key) for key in report.get("missing_keys", ()))
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise ModelError(
            f"hf:{name} has no weights for {', '.join(missing[:_SHOWN])}{more}, which would be drawn at random: it is not a "
            "trained classifier of this architecture"
        )
    return model


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Suppress the library's progress bars and messages, within the context."""
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    # The library draws missing weights from the global generator.
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            logging.set_verbosity(before)
            if bars:
                logging.enable_progress_bar()


def _with_weights(card: ModelCard, files: list[Path]) -> ModelCard:
    single = file_sha256(files[0]) if len(files) == 1 else ""
    return replace(card, weights=str(files[0] if single else files[0].parent), sha256=single)


def _json(path: Path, what: str) -> Mapping[str, Any]:
    check_file(path, f"{what} file")
    try:
        content = parse_json(read_user_text(path))
    except (OSError, ValueError) as error:
        raise ModelError(f"{what} file {str(path)!r} is not valid JSON: {error}") from error
    if not isinstance(content, Mapping):
        raise ModelError(f"{what} file {str(path)!r} holds a {type(content).__name__}, not an object")
    return content


def _size(value: Any) -> tuple[int, int] | None:
    if isinstance(value, Mapping):
        edge = value.get("shortest_edge")
        height, width = value.get("height", edge), value.get("width", edge)
        return (int(height), int(width)) if height and width else None
    if isinstance(value, list | tuple) and len(value) == 2:
        return int(value[0]), int(value[1])
    return (int(value), int(value)) if value else None


def _licence(folder: Path) -> str:
    page = folder / "README.md"
    text = page.read_text(encoding="utf-8", errors="replace")[:4000] if page.is_file() else ""
    match = re.search(r"^license:\s*(\S+)", text, re.MULTILINE)
    return match[1] if match else ""
