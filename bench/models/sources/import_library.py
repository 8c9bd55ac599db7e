"""Import of optional libraries, when a model of their source is loaded."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import torch

from gauntlet.bench.models.parts.errors import ModelError, short_error

_BUILT_FOR_TORCH = ("torchvision", "timm", "robustbench")
"""Libraries that need torchvision, whose compiled part must match the build of torch."""


def import_library(name: str, extra: str) -> Any:
    """Import a library, or a module of one.

    Raises ModelError that names the extra to install, or the reason why the import fails.
    """
    root = name.partition(".")[0]
    install = f"pip install 'robust-gauntlet[{extra}]'"
    try:
        with warnings.catch_warnings():
            # Warnings of a library about its own dependencies do not concern the user.
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except Exception as error:  # an incompatible library may raise anything
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing in (root, name):
            raise ModelError(f"{root} is not installed: {install}") from error
        if missing:
            raise ModelError(f"{root} needs {missing}, which is not installed: {install}") from error
        advice = install
        if root in _BUILT_FOR_TORCH:
            advice = (
                f"torchvision must be of the same build as torch ({torch.__version__}); install both from one index, or "
                f"{root} with them in an environment of its own"
            )
        raise ModelError(f"{root} cannot be imported here ({short_error(error)}): {advice}") from error
