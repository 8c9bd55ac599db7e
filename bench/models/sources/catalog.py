"""The loaders of all model sources; a loader is imported when a model of its source is loaded."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import cast

from gauntlet.bench.models.sources.parse_source import ModelSource, SourceKind
from gauntlet.bench.models.sources.source_model import SourceModel

_LOADERS: Mapping[SourceKind, str] = {
    "robustbench": "robustbench_zoo:load",
    "timm": "timm_models:load",
    "torchvision": "torchvision_models:load",
    "hf": "hugging_face:load",
    "onnx": "onnx_models:load",
    "torchscript": "torch_files:load_script",
    "export": "torch_files:load_exported",
    "onnx-blackbox": "onnx_models:load_black_box",
    "blackbox": "black_box_function:load",
}


def open_source(source: ModelSource, *, pretrained: bool) -> SourceModel:
    """Load the model of a source, in eval mode; not `pretrained`: with fresh weights. Raises ModelError, ImportSpecError."""
    module, _, function = _LOADERS[source.kind].partition(":")
    load = getattr(importlib.import_module(f"gauntlet.bench.models.sources.{module}"), function)
    return cast("SourceModel", load(source, pretrained=pretrained))
