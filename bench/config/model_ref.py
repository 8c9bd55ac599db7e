"""A model as it is named: its source, weights and settings, as `net.py:build@best.safetensors(mean=0.5, std=0.25)`.

Settings stand in brackets after the name, as those of attacks and defenses do, or hold for all models as options and keys of the
configuration with the same names.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gauntlet.attacks.registry.settings import Named, parse_named
from gauntlet.bench.config.files import ConfigError


@dataclass(frozen=True, repr=False)
class ModelRef:
    """A model as named: a registered name or wildcard, `module:factory`, `file.py:factory` or `SOURCE:NAME`, and its settings.

    Every field but `spec` is a setting in brackets, an option and a key of the configuration; `MODEL_SETTINGS` reads them.
    """

    spec: str
    weights: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    randomised: bool | None = None
    """Whether it is declared that passes over the same image may differ; True or None."""
    not_differentiable: bool | None = None
    """Whether it is declared that autograd gives no useful gradient; True or None."""
    logits: str | None = None
    """The entry of the model's output that holds its logits."""
    binary: bool | None = None
    """True: the model returns one logit for two classes."""
    classes: str | None = None
    """The file with the classes that the model is restricted to, with settings in brackets."""

    def __repr__(self) -> str:
        # Part of the names of cells in results folders: settings that were added later show only where they are given.
        return f"ModelRef({', '.join(f'{name}={value!r}' for name, value in model_fields(self).items())})"


def channel_values(value: Any, name: str) -> tuple[float, ...] | None:
    """One number for each channel, from a list or a text with commas; None for None. Raises ConfigError."""
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, Sequence) else [value]
    try:
        return tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        raise ConfigError(f"{name}={value!r} must be numbers separated by commas, one for each channel") from None


def _file(value: Any, name: str) -> str | None:
    return str(value) if value else None


def _name(value: Any, name: str) -> str | None:
    return None if value is None else str(value)


def _declared(value: Any, name: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise ConfigError(f"{name}={value!r} must be true or false")
    # What is not declared is measured, so that False says no more than nothing.
    return value or None


MODEL_SETTINGS: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "weights": _file,
    "mean": channel_values,
    "std": channel_values,
    "randomised": _declared,
    "not_differentiable": _declared,
    "logits": _name,
    "binary": _declared,
    "classes": _file,
}
"""The settings of a model, each with the function that reads its value; it is called with the name too, and raises ConfigError.

Each is a field of `ModelRef`, an option in `gauntlet.bench.config.options` and a key of the configuration.
"""
_FIRST: Final = ("spec", "weights", "mean", "std")
"""The fields of the first version, which are always written."""
_WITH_WEIGHTS: Final = re.compile(r"(?P<spec>.+?:[^\W\d][\w.]*|[^:/@]+)@(?P<weights>.+)")
"""A name with weights: FACTORY@FILE, or a registered name, or a name of timm or torchvision."""
_OWN_AT: Final = ("hf:", "onnx:", "torchscript:", "export:", "onnx-blackbox:", "blackbox:")
"""Sources whose names have an `@` of their own: a revision, or a file's."""


def model_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of models among options or keys of the configuration, read. Raises ConfigError."""
    read = {name: reader(given.get(name), name) for name, reader in MODEL_SETTINGS.items()}
    return {name: value for name, value in read.items() if value is not None}


def parse_model(text: str, shared: Mapping[str, Any] | None = None) -> ModelRef:
    """The model that a text names; `shared`: settings that hold where the text has none of its own.

    Settings that are not `MODEL_SETTINGS` stay in `spec`, for sources that have their own. Raises ConfigError.
    """
    named = _named(text.strip())
    # `classes=10` is a black box's own: how many there are.
    own = {
        name: value
        for name, value in named.keywords.items()
        if name in MODEL_SETTINGS and not (name == "classes" and isinstance(value, int))
    }
    spec, weights = _split_weights(named.name)
    if weights is not None and "weights" in own:
        raise ConfigError(f"model {text!r} has weights={own['weights']!r} and @{weights}: give one of them")
    settings = model_settings({**own, **({"weights": weights} if weights else {})})
    rest = tuple((name, value) for name, value in named.settings if name not in own)
    return ModelRef(str(Named(spec, rest)), **{**(shared or {}), **settings})


def _named(text: str) -> Named:
    """The name, which may have brackets in its path, and the settings of the brackets at its end."""
    depth, place = 0, len(text)
    while text.endswith(")") and place:
        place -= 1
        depth += (text[place] == ")") - (text[place] == "(")
        if depth == 0:
            break
    if depth or place in (0, len(text)):
        return Named(text)
    try:
        return Named(text[:place].strip(), parse_named(f"model{text[place:]}").settings)
    except ValueError:
        if text.startswith(_OWN_AT):
            # The source itself says what it takes.
            return Named(text)
        raise ConfigError(
            f"settings in model {text!r} are not understood: write key=value pairs separated by commas, like "
            f"{text[:place]}(mean=(0.49, 0.48, 0.45), weights='best.pth')"
        ) from None


def _split_weights(name: str) -> tuple[str, str | None]:
    found = (
        None
        if name.startswith(_OWN_AT) or name.endswith((".onnx", ".pt2", ".torchscript"))
        else _WITH_WEIGHTS.fullmatch(name)
    )
    return (name, None) if found is None else (found["spec"], found["weights"])


def model_fields(ref: ModelRef) -> dict[str, Any]:
    """A model as plain data: the fields of the first version, and later ones that are given."""
    fields = {field.name: getattr(ref, field.name) for field in dataclasses.fields(ref)}
    return {name: value for name, value in fields.items() if name in _FIRST or value is not None}


def given_settings(ref: ModelRef) -> list[str]:
    """The settings of a model beside its weights, each as `mean 0.5,0.4`, or as its name alone if it is true."""
    given = [
        (name, getattr(ref, name)) for name in MODEL_SETTINGS if name != "weights" and getattr(ref, name) is not None
    ]
    return [name if value is True else f"{name} {_text(value)}" for name, value in given]


def _text(value: Any) -> str:
    return ",".join(f"{part:.6g}" for part in value) if isinstance(value, tuple) else str(value)


def read_model(fields: Mapping[str, Any]) -> ModelRef:
    """The model of `model_fields`, also after JSON. Raises KeyError or TypeError for anything else."""
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return ModelRef(**plain)
