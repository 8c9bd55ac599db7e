"""Libraries that a source needs and Gauntlet does not: imported when a model of theirs is asked for."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import torch

from gauntlet.bench.models.parts.errors import ModelError, short_error

_BUILT_FOR_TORCH = ("torchvision", "timm", "robustbench")
"""Libraries that need torchvision, whose compiled part must fit torch's build."""


def import_library(name: str, extra: str) -> Any:
    """The library, or the module of one, of that name.

    Raises ModelError that says which extra to install, or why it cannot be imported here.
    """
    root = name.partition(".")[0]
    install = f"pip install 'robust-gauntlet[{extra}]'"
    try:
        with warnings.catch_warnings():
            # What a library says of the libraries that it uses is no business of who names a model.
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except Exception as error:  # a library that does not fit the others may raise anything
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing in (root, name):
            raise ModelError(f"{root} is not installed: {install}") from error
        if missing:
            raise ModelError(f"{root} needs {missing}, which is not installed: {install}") from error
        out = install
        if root in _BUILT_FOR_TORCH:
            out = (
                f"torchvision must be of the same build as torch ({torch.__version__}); install both from one index, or "
                f"{root} with them in an environment of its own"
            )
        raise ModelError(f"{root} cannot be imported here ({short_error(error)}): {out}") from error
