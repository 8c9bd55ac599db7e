"""Loading weights without running anybody's code: safetensors, or torch files with `weights_only=True`."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from gauntlet.bench.models.classifier import ModelError

_NESTS = ("state_dict", "model_state_dict", "model", "net")
_SHOWN = 5

_PREFIXES = ("module.", "_orig_mod.")

CONVERT = """convert it once, in an environment where you trust it (this runs the file's code):
    state = torch.load(FILE, map_location="cpu", weights_only=False)  # then take the state dict out of it
    state = state.state_dict() if isinstance(state, torch.nn.Module) else state
    safetensors.torch.save_file({k: v.contiguous().clone() for k, v in state.items()}, "weights.safetensors")"""


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dict into `model`, strictly.

    State dicts nested under `state_dict`, `model_state_dict`, `model` or `net`, and keys that all begin with `module.`
    (DataParallel) or `_orig_mod.` (torch.compile) where the model's do not, are unwrapped. Raises ModelError for a
    file that is missing, damaged or needs unpickling, and for keys and shapes that do not fit; the model is unchanged
    then.
    """
    own = model.state_dict()
    state = _unwrapped(read_state(path), path, own)
    # Older files do not count batches, and nothing depends on it in eval mode.
    counters = {name: own[name] for name in own if name.endswith("num_batches_tracked") and name not in state}
    missing = sorted(set(own) - set(state) - set(counters))
    unexpected = sorted(set(state) - set(own))
    if missing or unexpected:
        raise ModelError(
            f"weights {str(path)!r} do not fit the model: missing {_some(missing)}, unexpected {_some(unexpected)}"
        )
    misfit = [name for name in state if state[name].shape != own[name].shape]
    if misfit:
        name = misfit[0]
        raise ModelError(
            f"weights {str(path)!r} do not fit the model: {name} has shape {tuple(state[name].shape)}, the model needs "
            f"{tuple(own[name].shape)}"
        )
    model.load_state_dict({**state, **counters})


def read_state(path: Path) -> Mapping[str, Any]:
    """What a weights file holds, on the CPU. Raises ModelError."""
    if not path.is_file():
        raise ModelError(f"weights file {str(path)!r} is not there")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript archives warn before they raise
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"weights file {str(path)!r} is damaged, or holds more than tensors and reading it could run code of its "
            f"author: {CONVERT}"
        ) from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise ModelError(f"weights file {str(path)!r} cannot be read: {error}") from error
    if not isinstance(loaded, Mapping):
        raise ModelError(f"weights file {str(path)!r} holds a {type(loaded).__name__}, not a state dict: {CONVERT}")
    return loaded


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _unwrapped(state: Mapping[str, Any], path: Path, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for nest in _NESTS:
        if isinstance(state.get(nest), Mapping):
            state = state[nest]
            break
    strangers = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if strangers:
        raise ModelError(f"weights file {str(path)!r} holds {_some(strangers)} beside tensors: save model.state_dict()")
    found = {str(name): value for name, value in state.items()}
    for prefix in _PREFIXES:
        wrapped = all(name.startswith(prefix) for name in found)
        if found and wrapped and not all(name.startswith(prefix) for name in own):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _some(names: list[str]) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
