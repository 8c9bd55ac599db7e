"""Safe reading of weights, without running code from the file: safetensors, or torch files with `weights_only=True`."""

from __future__ import annotations

import argparse
import os
import pathlib
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

from gauntlet.bench.environment.size_limits import check_archive
from gauntlet.bench.models.files.local_files import check_file
from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.leaderboard.results.sealed_json import parse_json

PLAIN = ("state_dict", "model_state_dict", "model", "net")
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
"""Entries under which training scripts save the last weights (PLAIN) and their moving average (AVERAGED)."""
_INNER = (*PLAIN, "module")
_INDEX = ".index.json"
"""End of the name of a file that lists the files of a divided checkpoint."""
_DEPTH = 4
"""Largest depth of nested mappings: a file may contain a mapping that contains itself."""

CONVERT = """convert it once, in an environment where you trust it (this runs code from the file):
    state = torch.load(FILE, map_location="cpu", weights_only=False)  # then take the state dict out of it
    state = state.state_dict() if isinstance(state, torch.nn.Module) else state
    safetensors.torch.save_file({k: v.contiguous().clone() for k, v in state.items()}, "weights.safetensors")"""


@dataclass(frozen=True)
class Checkpoint:
    """A state dict, its entry in the file (empty: the top level), the other entries with weights, and the prefix that is asked
    for; None: to be found."""

    state: Mapping[str, Tensor]
    entry: str = ""
    others: tuple[str, ...] = ()
    prefix: str | None = None


def read_checkpoint(name: Path) -> Checkpoint:
    """Read the state dict of a file, on the CPU: `FILE`, or `FILE#ENTRY:PREFIX` for one of its entries, below a prefix.

    Entry and prefix may be left out, as in `FILE#ENTRY` and `FILE#:PREFIX`. An index of safetensors or torch files
    (`….index.json`) stands for all of its files.
    The default entry is one of `PLAIN`, else one of `AVERAGED`, else the only entry with tensors, else the file itself.
    Raises ModelError, also if reading the file could run code from it.
    """
    path, wanted, prefix = _parted(name)
    held = _shards(path) if path.name.endswith(_INDEX) else _held(path)
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
    if prefix and not any(str(name).startswith(prefix) for name in inner):
        raise ModelError(
            f"weights file {str(path)!r} has no key below {prefix!r}: its keys are {_some([*map(str, inner)])}"
        )
    return Checkpoint(
        {str(name): value for name, value in inner.items()},
        chosen,
        tuple(entry for entry in _entries(held) if entry != chosen),
        prefix,
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


def _parted(name: Path) -> tuple[Path, str, str | None]:
    """The file, the entry, and the prefix with the point at its end; None where none is asked for."""
    if name.exists() or "#" not in name.name:
        return name, "", None
    file, _, selected = name.name.rpartition("#")
    entry, colon, prefix = selected.partition(":")
    return name.with_name(file), entry, (f"{prefix.rstrip('.')}." if prefix else "") if colon else None


def _shards(index: Path) -> Mapping[str, Any]:
    """The tensors of all files that an index lists. Raises ModelError for names that are no files beside it."""
    check_file(index, "weights file")
    try:
        table = parse_json(index.read_bytes())["weight_map"]
        files = sorted({str(file) for file in table.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"weights file {str(index)!r} is no index of files: it needs a table weight_map") from error
    held: dict[str, Any] = {}
    for file in files:
        if Path(file).name != file:
            raise ModelError(f"weights file {str(index)!r} names {file!r}, which is no file beside it")
        part = _held(index.with_name(file))
        held |= {name: value for name, value in part.items() if table.get(name) == file}
    missing = [name for name in table if name not in held]
    if missing:
        raise ModelError(
            f"weights file {str(index)!r} lists {_some(missing)}, which its files do not hold: download them again"
        )
    return held


def _held(path: Path) -> Mapping[str, Any]:
    check_file(path, "weights file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        check_archive(path)
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


class _Settings:
    """Stands for the dictionaries with attributes in which Lightning saves hyperparameters: a plain dictionary."""

    def __new__(cls) -> dict[Any, Any]:  # type: ignore[misc]
        # torch fills no others.
        return {}


_LIGHTNING = (
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)
_PATHS = tuple(
    f"{module}.{name}"
    for module in ("pathlib", "pathlib._local")
    for name in ("PosixPath", "WindowsPath", "PurePosixPath")
)


def _harmless() -> list[Any]:
    """Classes that training scripts save beside weights and whose construction has no effect."""
    scalar: Any = np.float64().__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    dtypes = [getattr(np.dtypes, name) for name in np.dtypes.__all__]
    stand_ins = [(_Settings, name) for name in _LIGHTNING] + [(pathlib.PurePosixPath, name) for name in _PATHS]
    return [argparse.Namespace, *((scalar, name) for name in names), np.dtype, *dtypes, *stand_ins]
