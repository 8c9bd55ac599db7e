"""Safe reading of pickled dictionaries of arrays, lists, numbers and text: no code from the file runs.

Plain unpickling calls any function that a file names. Here the few names that a pickled numpy array needs are replaced by
containers of this module, which only store their arguments; every other name is an error.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gauntlet.bench.data.formats.raw_data import unreadable_file


def read_pickled(content: bytes, path: Path) -> dict[str, Any]:
    """Read the dictionary in `content`, the bytes of the file `path`. Keys are text; text of Python 2 becomes bytes.

    Raises ValueError for a damaged file, for other objects than a dictionary, and for values other than arrays of numbers,
    lists, tuples, dictionaries, numbers, text and bytes.
    """
    try:
        content_dict = _Reader(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(content_dict, dict):
            raise pickle.UnpicklingError(f"it contains a {type(content_dict).__name__}, not a dictionary")
        done: dict[int, Any] = {}
        return {
            key.decode() if isinstance(key, bytes) else str(key): _plain(value, done)
            for key, value in content_dict.items()
        }
    except _RefusedError as error:
        raise ValueError(f"data file {str(path)!r} is refused, and none of its code was run: {error}") from None
    except Exception as error:  # a damaged pickle may raise anything
        raise unreadable_file(
            path, error, "it should be one of the original, pickled files; download it again"
        ) from error


class _RefusedError(Exception):
    """The file names an object that is not allowed."""


class _Inert:
    """Stores its arguments and its state."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Inert):
    """Stands for the result of `numpy._core.multiarray._reconstruct`."""


class _Buffer(_Inert):
    """Stands for the result of `numpy._core.numeric._frombuffer`, in pickles of protocol 5."""


class _Dtype(_Inert):
    """Stands for the result of `numpy.dtype`."""


class _Text(_Inert):
    """Stands for the result of `_codecs.encode`: bytes, in protocols below 3."""


class _Name(_Inert):
    """Stands for the class `numpy.ndarray`, which is not called."""


class _Reader(pickle.Unpickler):
    known: ClassVar[dict[tuple[str, str], type[_Inert]]] = {
        ("numpy", "dtype"): _Dtype,
        ("numpy", "ndarray"): _Name,
        ("_codecs", "encode"): _Text,
        **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
        **{(f"numpy.{core}.numeric", "_frombuffer"): _Buffer for core in ("core", "_core")},
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise _RefusedError(
                f"it names {module}.{name}, which a data set does not need, so that it may be an attack on its readers. "
                "Download the file from its original source"
            )
        return self.known[module, name]


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """Replace containers by the values that they stand for. Raises ValueError and others for invalid content.

    `done`: results by the identity of the value. A file may name a list many times, also within lists that it names many times.
    """
    if id(value) not in done:
        done[id(value)] = _converted(value, done)
    return done[id(value)]


def _converted(value: Any, done: dict[int, Any]) -> Any:
    if isinstance(value, _Array):
        _, shape, dtype, fortran, content = value.state
        return _array(shape, dtype, content, "F" if fortran else "C")
    if isinstance(value, _Buffer):
        content, dtype, shape, order = value.args
        return _array(shape, dtype, content, order)
    if isinstance(value, _Text):
        return _bytes(value)
    if isinstance(value, list):
        return [_plain(item, done) for item in value]
    if isinstance(value, tuple):
        return tuple(_plain(item, done) for item in value)
    if isinstance(value, dict):
        return {_plain(key, done): _plain(item, done) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    raise ValueError(f"it contains a {type(value).__name__}")


def _array(shape: Any, dtype: Any, content: Any, order: Any) -> npt.NDArray[Any]:
    kind, data = _dtype(dtype), _bytes(content)
    sides = tuple(shape)
    if not all(type(side) is int and side >= 0 for side in sides) or math.prod(sides) * kind.itemsize != len(data):
        raise ValueError(f"an array of {kind} has shape {sides!r}, but {len(data)} bytes")
    return np.frombuffer(data, dtype=kind).reshape(sides, order="F" if order == "F" else "C")


def _dtype(value: Any) -> np.dtype[Any]:
    if not isinstance(value, _Dtype):
        raise ValueError(f"an array has a {type(value).__name__} as its type")
    text = _text(value.args[0])
    swapped = _text(value.state[1]) if value.state is not None else "|"
    if not re.fullmatch(r"[biuf][1248]", text) or swapped not in "<>|=":
        raise ValueError(f"an array has the type {text!r}, which is not numeric")
    return np.dtype(f"{swapped}{text}")


def _bytes(value: Any) -> bytes:
    if isinstance(value, _Text):
        text, encoding = value.args
        if not isinstance(text, str) or _text(encoding) != "latin1":
            raise ValueError("it contains bytes in an unknown form")
        return text.encode("latin1")
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    raise ValueError(f"an array has a {type(value).__name__} as its content")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
