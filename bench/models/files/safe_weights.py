"""Safe reading of weights, without running code from the file: safetensors, or torch files with `weights_only=True`."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gauntlet.bench.models.files.local_files import check_file
from gauntlet.bench.models.parts.errors import ModelError

PLAIN = ("state_dict", "model_state_dict", "model", "net")
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
"""Entries under which training scripts save the last weights (PLAIN) and their moving average (AVERAGED)."""
_INNER = (*PLAIN, "module")
_DEPTH = 4
"""Largest depth of nested mappings: a file may contain a mapping that contains itself."""

CONVERT = """convert it once, in an environment where you trust it (this runs code from the file):
    state = torch.load(FILE, map_location="cpu", weights_only=False)  # then take the state dict out of it
    state = state.state_dict() if isinstance(state, torch.nn.Module) else state
    safetensors.torch.save_file({k: v.contiguous().clone() for k, v in state.items()}, "weights.safetensors")"""


@dataclass(frozen=True)
class Checkpoint:
    """A state dict, its entry in the file (empty: the top level), and the other entries with weights."""

    state: Mapping[str, Tensor]
    entry: str = ""
    others: tuple[str, ...] = ()


def read_checkpoint(name: Path) -> Checkpoint:
    """Read the state dict of a file, on the CPU: `FILE`, or `FILE#ENTRY` for one of its entries.

    The default entry is one of `PLAIN`, else one of `AVERAGED`, else the only entry with tensors, else the file itself.
    Raises ModelError, also if reading the file could run code from it.
    """
    path, wanted = _parted(name)
    held = _held(path)
    if wanted:
        if not isinstance(held.get(wanted), Mapping):
            raise ModelError(f"weights file {str(path)!r} has no entry {wanted!r}: {_choices(_entries(held))}")
        chosen = wanted
    else:
        chosen = _chosen(held, path)
    inner = held[chosen] if chosen else held
    for _ in range(_DEPTH):
        nest = _nest(inner, _INNER)
        inner = inner[nest] if nest else inner
    strangers = [str(name) for name, value in inner.items() if not isinstance(value, Tensor)]
    if strangers:
        raise ModelError(f"weights file {str(path)!r} holds {_some(strangers)} beside tensors: save model.state_dict()")
    return Checkpoint(
        {str(name): value for name, value in inner.items()},
        chosen,
        tuple(entry for entry in _entries(held) if entry != chosen),
    )


@contextmanager
def weights_only() -> Iterator[None]:
    """Restrict torch.load to tensors, numbers and plain settings of training scripts, also within other libraries."""
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        with ExitStack() as stack, warnings.catch_warnings():
            # TorchScript archives and other protocols warn before they raise.
            warnings.simplefilter("ignore")
            if torch.__version__ >= "2.6":
                stack.enter_context(torch.serialization.safe_globals(_harmless()))
            yield
    finally:
        if before is None:
            del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        else:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before


def describe_load_error(error: Exception) -> str:
    """Describe an error of torch.load, as the end of a sentence."""
    text = str(error)
    refused = re.search(r"GLOBAL (\S+)", text)
    if refused:
        return f"holds more than tensors ({refused[1]}), and reading it could run code from it: {CONVERT}"
    if isinstance(error, pickle.UnpicklingError):
        return "is damaged, or not a file of torch.save"
    return f"cannot be read: {text.partition('. ')[0].splitlines()[0] if text else type(error).__name__}"


def _parted(name: Path) -> tuple[Path, str]:
    if name.exists() or "#" not in name.name:
        return name, ""
    file, _, entry = name.name.rpartition("#")
    return name.with_name(file), entry


def _held(path: Path) -> Mapping[str, Any]:
    check_file(path, "weights file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with weights_only():
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ModelError(f"weights file {str(path)!r} cannot be read: {error}") from error
    except Exception as error:  # a damaged pickle may raise anything
        raise ModelError(f"weights file {str(path)!r} {describe_load_error(error)}") from error
    if not isinstance(loaded, Mapping):
        raise ModelError(f"weights file {str(path)!r} holds a {type(loaded).__name__}, not a state dict: {CONVERT}")
    return loaded


def _chosen(held: Mapping[str, Any], path: Path) -> str:
    nest = _nest(held, (*PLAIN, *AVERAGED))
    if nest or any(isinstance(value, Tensor) for value in held.values()):
        return nest
    entries = _entries(held)
    if len(entries) > 1:
        raise ModelError(f"weights file {str(path)!r} has several entries with weights: {_choices(entries)}")
    return entries[0] if entries else ""


def _nest(held: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((name for name in names if isinstance(held.get(name), Mapping)), "")


def _entries(held: Mapping[str, Any]) -> list[str]:
    """Entries that contain tensors, directly or in an entry of theirs."""

    def holds(value: Any, depth: int) -> bool:
        if isinstance(value, Mapping):
            return depth > 0 and any(holds(item, depth - 1) for item in value.values())
        return isinstance(value, Tensor)

    # The state of an optimiser has tensors deeper than this, under numbers.
    names = [str(name) for name, value in held.items() if isinstance(value, Mapping) and holds(value, 2)]
    return [name for name in names if "optim" not in name]


def _choices(entries: list[str]) -> str:
    return f"write FILE#ENTRY, with ENTRY one of {_some(entries)}" if entries else "it has no entry with weights"


def _some(names: list[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _harmless() -> list[Any]:
    """Classes that training scripts save beside weights and whose construction has no effect."""
    scalar: Any = np.float64().__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    dtypes = [getattr(np.dtypes, name) for name in np.dtypes.__all__]
    return [argparse.Namespace, *((scalar, name) for name in names), np.dtype, *dtypes]
