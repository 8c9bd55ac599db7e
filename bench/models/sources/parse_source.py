"""Names of models with a source: `robustbench:…`, `timm:…`, `onnx:FILE`, `blackbox:FILE.py:FUNCTION`.

Parsing a name imports neither torch nor the source's library, and opens no file, so that planning needs names only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal, get_args

from gauntlet.attacks.registry.settings import Named, Setting, parse_named
from gauntlet.bench.models.parts.card import Access
from gauntlet.bench.models.parts.errors import ModelError

SourceKind = Literal[
    "robustbench", "timm", "torchvision", "hf", "onnx", "torchscript", "export", "onnx-blackbox", "blackbox"
]
KINDS: tuple[SourceKind, ...] = get_args(SourceKind)

_SETTINGS: Mapping[SourceKind, tuple[str, ...]] = {
    "robustbench": (),
    "timm": ("num_classes",),
    "torchvision": ("num_classes",),
    "hf": (),
    "onnx": (),
    "torchscript": (),
    "export": (),
    "onnx-blackbox": ("classes", "max_queries"),
    "blackbox": ("classes", "max_queries", "batch_size", "give"),
}
_LIMITS = ("max_queries", "batch_size")
_FORMS: Mapping[SourceKind, str] = {
    "robustbench": "robustbench:NAME or robustbench:DATASET/NORM/NAME, such as robustbench:cifar10/Linf/Carmon2019Unlabeled",
    "timm": "timm:NAME, such as timm:resnet50.a1_in1k",
    "torchvision": "torchvision:NAME or torchvision:NAME.WEIGHTS, such as torchvision:resnet18.IMAGENET1K_V1",
    "hf": "hf:OWNER/REPOSITORY, hf:OWNER/REPOSITORY@REVISION or hf:./FOLDER",
    "onnx": "onnx:FILE.onnx",
    "torchscript": "torchscript:FILE.pt",
    "export": "export:FILE.pt2",
    "onnx-blackbox": "onnx-blackbox:FILE.onnx",
    "blackbox": "blackbox:FILE.py:FUNCTION or blackbox:package.module:FUNCTION",
}
"""The forms of the names of each source, for error messages."""
_ENDINGS: Mapping[str, SourceKind] = {
    ".onnx": "onnx",
    ".pt2": "export",
    ".pt": "torchscript",
    ".pth": "torchscript",
    ".torchscript": "torchscript",
}
"""Sources of files that are named alone. What is in a file is seen when it is loaded."""
_FILES: tuple[SourceKind, ...] = ("onnx", "torchscript", "export", "onnx-blackbox")
ROBUSTBENCH_DATA = ("cifar10", "cifar100", "imagenet")
ROBUSTBENCH_NORMS = ("Linf", "L2", "corruptions")


class SourceError(ModelError):
    """The name of a model cannot be parsed; the message says which form is expected."""


@dataclass(frozen=True)
class ModelSource:
    """A parsed name: the source of the model, its name there, and settings."""

    kind: SourceKind
    name: str
    settings: tuple[tuple[str, Setting], ...] = ()

    @property
    def keywords(self) -> dict[str, Setting]:
        """The settings as keyword arguments."""
        return dict(self.settings)

    @property
    def access(self) -> Access:
        """What an attack may observe of the model."""
        if self.kind not in ("blackbox", "onnx-blackbox"):
            return "white-box"
        return "labels" if "classes" in self.keywords else "scores"

    @property
    def identity(self) -> str:
        """The part of the name that determines results.

        Paths of files are left out, since their content is hashed, and so are the limit and batch size of a black box.
        """
        settings = tuple((name, value) for name, value in self.settings if name not in _LIMITS)
        if self.kind in _FILES or (self.kind == "hf" and is_folder(self.name)):
            return str(Named(self.kind, settings))
        name = self.name.rpartition(":")[2] if self.kind == "blackbox" else self.name
        return str(Named(f"{self.kind}:{name}", settings))

    @property
    def title(self) -> str:
        """The name in tables, without folders and settings."""
        if self.kind == "blackbox":
            file, _, function = self.name.rpartition(":")
            return f"blackbox:{PurePath(file).stem if file.endswith('.py') else file}.{function}"
        if self.kind in _FILES:
            return f"{self.kind}:{PurePath(self.name).stem}"
        if self.kind == "robustbench" or (self.kind == "hf" and is_folder(self.name)):
            return f"{self.kind}:{PurePath(self.name).name}"
        return f"{self.kind}:{self.name}"


def parse_source(spec: str) -> ModelSource | None:
    """Parse a name; None if it has no source. Raises SourceError for an invalid name with a source."""
    prefix, colon, rest = spec.partition(":")
    kind = next((name for name in KINDS if colon and name == prefix), None)
    if kind is None:
        ending = PurePath(spec).suffix.lower()
        if colon or ending not in _ENDINGS:
            return None
        kind, rest = _ENDINGS[ending], spec
    try:
        named = parse_named(rest)
    except ValueError as error:
        raise SourceError(f"model {spec!r} is not understood ({error}): write {_FORMS[kind]}") from None
    unknown = [name for name in named.keywords if name not in _SETTINGS[kind]]
    if unknown:
        has = f"it has {', '.join(_SETTINGS[kind])}" if _SETTINGS[kind] else "it has no settings"
        raise SourceError(f"model {spec!r} has no setting {unknown[0]!r}: {has}")
    _understood(kind, named.name, spec)
    return ModelSource(kind, named.name, named.settings)


def complete_robustbench_name(spec: str, data: str, norm: str) -> str:
    """Complete the short name of a RobustBench model by the data set and norm in use; other names are unchanged.

    Raises SourceError if RobustBench has no models for them.
    """
    source = parse_source(spec)
    if source is None or source.kind != "robustbench" or "/" in source.name:
        return spec
    # The rest of a data name selects samples and a folder.
    data_set = re.split(r"[^\w-]", data, maxsplit=1)[0]
    if data_set not in ROBUSTBENCH_DATA or norm not in ROBUSTBENCH_NORMS:
        raise SourceError(
            f"model {spec!r} is not complete on data {data!r} in {norm}: write robustbench:DATASET/NORM/{source.name}, with "
            f"DATASET one of {', '.join(ROBUSTBENCH_DATA)} and NORM one of {', '.join(ROBUSTBENCH_NORMS)}"
        )
    return f"robustbench:{data_set}/{norm}/{source.name}"


def is_folder(name: str) -> bool:
    """Whether a name with `hf:` is a local folder."""
    return name.startswith((".", "/", "~"))


def _understood(kind: SourceKind, name: str, spec: str) -> None:
    parts = name.split("/")
    if kind == "robustbench":
        fine = len(parts) == 1 or (
            len(parts) == 3 and parts[0] in ROBUSTBENCH_DATA and parts[1] in ROBUSTBENCH_NORMS and bool(parts[2])
        )
    elif kind == "hf":
        fine = is_folder(name) or (len(parts) == 2 and all(parts))
    elif kind == "blackbox":
        function = name.rpartition(":")
        fine = bool(function[0] and function[2])
    else:
        fine = True
    if not fine:
        raise SourceError(f"model {spec!r} is not understood: write {_FORMS[kind]}")
