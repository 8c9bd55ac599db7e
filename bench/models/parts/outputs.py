"""Logits from what a model returns: a tensor, a tuple, a dict or an object, and a single logit for two classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gauntlet.bench.models.parts.errors import ModelError

_SHOWN = 6


@dataclass(frozen=True)
class Output:
    """How the logits of a model are read from what it returns."""

    key: str | None = None
    """The entry of a dict, the attribute of an object, or the place in a tuple (`"1"`), that holds the logits; None: `logits`,
    the only tensor, or the first place."""
    binary: bool = False
    """Whether the model returns one logit z, (N,) or (N, 1), for two classes: positive for class 1. They become [-z, z]."""

    def logits(self, returned: Any) -> Tensor:
        """Logits (N, K) of what a model returned. Raises ModelError if there are none."""
        found = extract_logits(returned) if self.key is None else _named(returned, self.key)
        return _two_classes(found) if self.binary else found


def extract_logits(output: Any) -> Tensor:
    """Extract the tensor of logits from a model's output. Raises ModelError if there is none."""
    logits = output
    if isinstance(logits, Mapping):
        tensors = [value for value in logits.values() if isinstance(value, Tensor)]
        logits = logits.get("logits", tensors[0] if len(tensors) == 1 else None)
    elif not isinstance(logits, Tensor) and hasattr(logits, "logits"):
        logits = logits.logits
    elif isinstance(logits, tuple | list) and logits:
        logits = logits[0]
    if not isinstance(logits, Tensor):
        held = _held(output)
        name = f", or name the entry that holds them, --logits {held[0]}" if held else ""
        raise ModelError(
            f"the model returns {_described(output)}, in which no logits are found: return a tensor (N, K), a tuple "
            f"that begins with it, a dict or an object with logits{name}"
        )
    return logits


def shape_error(shape: tuple[int, ...], images: int) -> str:
    """What is wrong with the shape of logits that are not (N, K) of so many images, N = `images`, as a sentence."""
    single = ", or, if it is one logit for two classes, use --binary" if shape in ((images,), (images, 1)) else ""
    return f"the model returns shape {shape} for {images} images: return logits (N, K), a row per image{single}"


def _named(returned: Any, key: str) -> Tensor:
    if isinstance(returned, Mapping):
        found = returned.get(key)
    elif isinstance(returned, tuple | list) and key.lstrip("-").isdigit():
        found = returned[int(key)] if -len(returned) <= int(key) < len(returned) else None
    else:
        found = getattr(returned, key, None) if not isinstance(returned, Tensor) else None
    if not isinstance(found, Tensor):
        held = _held(returned)
        remedy = f"use one of {', '.join(held[:_SHOWN])}" if held else "leave --logits out"
        raise ModelError(
            f"the model returns {_described(returned)}, without a tensor {key!r} that --logits names: {remedy}"
        )
    return found


def _two_classes(found: Tensor) -> Tensor:
    flat = found.squeeze(1) if found.ndim == 2 and found.shape[1] == 1 else found
    if flat.ndim != 1 or not flat.is_floating_point():
        raise ModelError(
            f"the model returns {found.dtype} of shape {tuple(found.shape)}, and --binary is for one logit for each image, (N,) "
            "or (N, 1): leave it out"
        )
    return torch.stack([-flat, flat], 1)


def _held(returned: Any) -> list[str]:
    """The names by which the tensors of an output can be asked for."""
    if isinstance(returned, Mapping):
        items = list(returned.items())
    elif isinstance(returned, tuple | list):
        items = list(enumerate(returned))
    else:
        items = [] if isinstance(returned, Tensor) else list(getattr(returned, "__dict__", {}).items())
    return [str(name) for name, value in items if isinstance(value, Tensor)]


def _described(returned: Any) -> str:
    held = _held(returned)
    return type(returned).__name__ + (f" with {', '.join(held[:_SHOWN])}" if held else "")
