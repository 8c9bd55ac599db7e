"""Reading a bare tensor of images from a file: torch, NumPy or safetensors. No code from the file runs."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from gauntlet.bench.environment.size_limits import MOST_IN_MEMORY, check_archive, check_size
from gauntlet.bench.models.files.safe_weights import describe_load_error, weights_only


class ExamplesError(ValueError):
    """A file of examples cannot be read, or does not fit the data; the message names the file and the remedy."""


def read_examples(name: Path) -> Tensor:
    """The images of `FILE`, or of the entry of `FILE#ENTRY`: (N, C, H, W) as they were saved, on the CPU.

    Without an entry the file must hold one array of four dimensions. Raises ExamplesError.
    """
    path, entry = name, ""
    if not name.exists() and "#" in name.name:
        stem, _, entry = name.name.rpartition("#")
        path = name.with_name(stem)
    if not path.is_file():
        raise ExamplesError(
            f"file of examples {str(path)!r} does not exist: name a .pt, .npy, .npz or .safetensors file"
        )
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ExamplesError(
            f"file of examples {str(path)!r} is none of {', '.join(_READERS)}: save it in one of these forms"
        )
    try:
        check_size("it", path.stat().st_size, MOST_IN_MEMORY)
        held = reader(path)
    except ExamplesError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise ExamplesError(f"file of examples {str(path)!r} cannot be read: {error}") from error
    return _chosen(held, entry, path)


def _torch(path: Path) -> Any:
    check_archive(path)
    try:
        with weights_only():
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ExamplesError(f"file of examples {str(path)!r} {describe_load_error(error)}") from error


def _npz(path: Path) -> dict[str, Any]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no archive, as np.savez writes it")
    check_archive(path)
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


_READERS: Final[dict[str, Callable[[Path], Any]]] = {
    **dict.fromkeys((".pt", ".pth"), _torch),
    # Mapped: a header may claim more than the file has.
    ".npy": lambda path: np.lib.format.open_memmap(path, mode="r"),
    ".npz": _npz,
    ".safetensors": load_file,
}


def _chosen(held: Any, entry: str, path: Path) -> Tensor:
    where = f"file of examples {str(path)!r}"
    if isinstance(held, Tensor | np.ndarray):
        if entry:
            raise ExamplesError(f"{where} holds a single array: leave out #{entry}")
        return _tensor(held, where)
    if not isinstance(held, Mapping):
        raise ExamplesError(f"{where} holds a {type(held).__name__}: save one tensor (N, C, H, W)")
    arrays = {str(key): value for key, value in held.items() if isinstance(value, Tensor | np.ndarray)}
    if entry:
        if entry not in arrays:
            raise ExamplesError(f"{where} has no array {entry!r}: it has {', '.join(arrays) or 'none'}")
        return _tensor(arrays[entry], f"{where}, entry {entry!r},")
    images = [key for key, value in arrays.items() if value.ndim == 4]
    if len(images) != 1:
        raise ExamplesError(
            f"{where} holds {len(images)} arrays of four dimensions ({', '.join(arrays) or 'none at all'}): name one, FILE#ENTRY"
        )
    return _tensor(arrays[images[0]], where)


def _tensor(value: Any, where: str) -> Tensor:
    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8 and (value.dtype.kind != "f" or value.dtype.itemsize > 8):
            raise ExamplesError(f"{where} holds {value.dtype}: save floats in [0, 1], or uint8 in 0..255")
        native = value.astype(value.dtype.newbyteorder("="))
        return torch.from_numpy(native)
    if value.dtype != torch.uint8 and not value.is_floating_point():
        raise ExamplesError(f"{where} holds {value.dtype}: save floats in [0, 1], or uint8 in 0..255")
    if value.layout != torch.strided:
        raise ExamplesError(f"{where} holds a sparse tensor: save a dense one")
    tensor: Tensor = value.detach()
    return tensor


def fitting(examples: Tensor, shape: tuple[int, ...], count: int, name: str) -> Tensor:
    """The images, floats in [0, 1] but for single ones, for the first samples of data `name` with `count` images of `shape`.

    Raises ExamplesError for another number or shape of images, and for values that are no pixels in [0, 1] throughout.
    """
    given = tuple(examples.shape)
    if len(given) != 4:
        raise ExamplesError(f"the examples have shape {given}: save (N, C, H, W), in the order of the data")
    if given[1:] != shape:
        turned = "; they look like (N, H, W, C): transpose them" if given[1:] == (*shape[1:], shape[0]) else ""
        raise ExamplesError(
            f"the examples have shape {given}, but the images of data {name!r} are (N, {', '.join(map(str, shape))}){turned}"
        )
    if not 0 < given[0] <= count:
        raise ExamplesError(
            f"there are {given[0]} examples and {count} samples of data {name!r}: give one for each sample, or for the first ones"
        )
    if examples.dtype == torch.uint8:
        return examples.to(torch.float32) / 255
    pixels = examples if examples.dtype == torch.float64 else examples.to(torch.float32)
    flat = pixels.flatten(1)
    if not bool(flat.isfinite().any()):
        raise ExamplesError("the examples hold no finite number: they were damaged before they were saved")
    # A few images outside the box are reported one by one; all of them mean another scale.
    outside = ((flat < -0.1) | (flat > 1.1)).any(1)
    if bool(outside.all()):
        finite = flat[flat.isfinite()]
        raise ExamplesError(
            f"the examples have values from {float(finite.min()):.4g} to {float(finite.max()):.4g}: save pixels in [0, 1], "
            "before normalisation, or as uint8 in 0..255"
        )
    return pixels
