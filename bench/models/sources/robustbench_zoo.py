"""Models of the zoo of RobustBench (Croce et al. 2021, arXiv 2010.09670), through its package, or by networks of our own."""

from __future__ import annotations

import difflib
import importlib
import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from gauntlet.bench.environment.provenance import package_version
from gauntlet.bench.models.files.local_files import check_file, file_sha256
from gauntlet.bench.models.files.safe_weights import describe_load_error, weights_only
from gauntlet.bench.models.parts.errors import ModelError, short_error
from gauntlet.bench.models.sources.import_library import import_library
from gauntlet.bench.models.sources.parse_source import ModelSource
from gauntlet.bench.models.sources.robustbench_figures import known_names, robustbench_card
from gauntlet.bench.models.sources.robustbench_networks import has_network, own_network
from gauntlet.bench.models.sources.source_model import SourceModel, library_digest

FOLDER_VARIABLE = "GAUNTLET_MODELS"
_OWN = "networks of RobustBench, first edition"
"""Stands in keys for the code of our own networks, which is hashed with the model, and for what a checkpoint does not say."""


def models_folder() -> Path:
    """The folder of checkpoints `<data set>/<norm>/<name>.pt`, in RobustBench's layout.

    The environment variable GAUNTLET_MODELS; else `models`, RobustBench's default, if it exists; else a cache folder.
    """
    given = os.environ.get(FOLDER_VARIABLE)
    if given:
        return Path(given).expanduser()
    own = Path("models")
    if any((own / data).is_dir() for data in ("cifar10", "cifar100", "imagenet")):
        return own
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gauntlet" / "models"


def checkpoints(name: str) -> list[Path]:
    """The existing files of `DATASET/NORM/NAME`; an ensemble has several."""
    data, norm, model = name.split("/")
    folder = models_folder() / data / norm
    return sorted(folder.glob(f"{model}.pt")) + sorted(folder.glob(f"{model}.pt_m*.pt"))


def load(source: ModelSource, *, pretrained: bool) -> SourceModel:
    """Load a model of the zoo; without data set and norm, for CIFAR-10 in Linf, RobustBench's default.

    A checkpoint in `models_folder` is used without a network; others are downloaded there. Where the package cannot be imported,
    a checkpoint of a network that Gauntlet has (`robustbench_networks`) is loaded into that. Raises ModelError.
    """
    name = source.name if "/" in source.name else f"cifar10/Linf/{source.name}"
    data, norm, model_name = name.split("/")
    for file in checkpoints(name):
        check_file(file, "checkpoint")
    place = models_folder() / data / norm / f"{model_name}.pt"
    try:
        utils, zoo = _package()
    except ModelError as error:
        if not pretrained or not has_network(name):
            raise
        if not place.is_file():
            raise ModelError(f"{error}; or put the checkpoint at {str(place)!r}, which needs no package") from error
        network, mean, std = own_network(name, place)
        card = replace(robustbench_card(name), weights=str(place), sha256=file_sha256(place), mean=mean, std=std)
        return SourceModel(network, card, _OWN)
    model = _fetched(utils, zoo, data, norm, model_name) if pretrained else _built(zoo, data, norm, model_name)
    files = checkpoints(name) if pretrained else []
    card = robustbench_card(name)
    if len(files) == 1:
        card = replace(card, weights=str(files[0]), sha256=file_sha256(files[0]))
    return SourceModel(model.eval(), card, library_digest("robustbench", "timm"))


def _package() -> tuple[Any, Any]:
    """RobustBench's modules `utils` and `model_zoo`. Raises ModelError."""
    # torchattacks 3.3 installs old copies of two other packages: `robustbench`, which must not be used, and `autoattack`, which
    # hides the authors' package. The latter is called pyautoattack on PyPI, but RobustBench 1.1 imports it as autoattack.
    if package_version("robustbench") == "absent":
        raise ModelError("robustbench is not installed: pip install 'robust-gauntlet[robustbench]'")
    try:
        importlib.import_module("autoattack.state")
    except ImportError:
        for name in ("", ".state"):
            sys.modules[f"autoattack{name}"] = import_library(f"pyautoattack{name}", "robustbench")
    return import_library("robustbench.utils", "robustbench"), import_library("robustbench.model_zoo", "robustbench")


def _entries(zoo: Any, data: str, norm: str) -> dict[str, Any]:
    models = {key.value: value for key, value in zoo.model_dicts.items()}.get(data, {})
    entries: dict[str, Any] = {key.value: value for key, value in models.items()}.get(norm, {})
    return entries


def _built(zoo: Any, data: str, norm: str, name: str) -> nn.Module:
    entries = _entries(zoo, data, norm)
    if name not in entries:
        raise ModelError(_unknown(data, norm, name))
    model: nn.Module = entries[name]["model"]()
    return model


def _fetched(utils: Any, zoo: Any, data: str, norm: str, name: str) -> nn.Module:
    place = models_folder() / data / norm / f"{name}.pt"
    try:
        with weights_only():
            model: nn.Module = utils.load_model(
                model_name=name, model_dir=str(models_folder()), dataset=data, threat_model=norm
            )
    except KeyError as error:
        if error.args != (name,) or name in _entries(zoo, data, norm):
            raise _failed(place, error) from error
        raise ModelError(_unknown(data, norm, name)) from error
    except Exception as error:  # networks, archives and foreign code may raise anything
        raise _failed(place, error) from error
    return model


def _failed(place: Path, error: Exception) -> ModelError:
    if isinstance(error, pickle.UnpicklingError):
        return ModelError(f"checkpoint {str(place)!r} {describe_load_error(error)}")
    why = short_error(error)
    if place.is_file():
        return ModelError(f"robustbench cannot load {str(place)!r}: {why}")
    return ModelError(
        f"robustbench cannot download {place.stem!r} ({why}): without a network, put its checkpoint at {str(place)!r}, or set "
        f"{FOLDER_VARIABLE} to the folder with {place.parent.parent.name}/{place.parent.name}/{place.name}"
    )


def _unknown(data: str, norm: str, name: str) -> str:
    near = difflib.get_close_matches(name, known_names(data, norm), n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    return f"RobustBench has no model {name!r} for {data} in {norm}{hint}"
