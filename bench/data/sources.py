"""Data as users name them on the command line: registered names, files, folders, functions of their own."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gauntlet.bench.data.arrays import from_arrays, from_dataset
from gauntlet.bench.data.catalog import DATA
from gauntlet.bench.data.dataset import Data
from gauntlet.bench.data.folder import from_folder
from gauntlet.bench.data.selection import last_needed, select

FORMS = (
    "write a registered name, FILE.npz with arrays images and labels, a folder with one sub-folder a class, "
    "or module:function or path/to/file.py:function"
)


def load_data(spec: str, *, samples: str | int | None = None, classes: int | None = None) -> Data:
    """The data that `spec` names, validated, with the samples that `samples` names (see `selection.select`).

    `spec` is looked up in this order: a registered name (`./name` means the file), `FILE.npz` with arrays `images`,
    `labels` and, optionally, `ids`; a folder of images by class (see `folder.from_folder`); `module:function` or
    `path/to/file.py:function`, which is called without arguments and returns (images, labels), (images, labels, ids),
    a torch Dataset or a DataLoader. `classes` says how many classes there are where the labels alone do not show it.
    Raises ValueError for data that are wrong, LookupError for a spec that names nothing, FileNotFoundError for a file
    that is not there; errors inside the user's own function are passed on.
    """
    path = Path(spec)
    if spec in DATA:
        data = DATA.get(spec).load()
    elif path.suffix.lower() == ".npz":
        data = _from_npz(path, classes)
    elif path.is_dir():
        # It has selected already, so as not to read images that nobody asked for.
        return replace(from_folder(path, samples, classes=classes), spec=spec)
    elif ":" in spec:
        data = _from_function(spec, last_needed(samples), classes)
    else:
        raise LookupError(_unknown(spec))
    chosen = select(data, samples)
    return replace(chosen, spec=spec, classes=chosen.classes if classes is None else classes)


def _unknown(spec: str) -> str:
    try:
        DATA.get(spec)
    except LookupError as error:
        return f"{error.args[0]}, and no file or folder has that name: {FORMS}"
    raise AssertionError(spec)


def _from_npz(path: Path, classes: int | None) -> Data:
    if not path.is_file():
        raise FileNotFoundError(f"data file {str(path)!r} is not there: {FORMS}")
    arrays: dict[str, npt.NDArray[Any]] = {}
    name = ""
    try:
        # Without pickle, reading a file that somebody sent runs none of its code.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it holds a single array, as np.save writes it")
            names = archive.files
            for name in ("images", "labels", "ids"):
                if name in names:
                    arrays[name] = archive[name]
            archive.close()
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        where = f"array {name!r} of " if name else ""
        raise ValueError(
            f"{where}data file {str(path)!r} cannot be read ({error}): save it by np.savez_compressed(file, "
            "images=…, labels=…, ids=…), ids as an array of strings, no Python objects"
        ) from error
    missing = [one for one in ("images", "labels") if one not in arrays]
    if missing:
        raise ValueError(
            f"data file {str(path)!r} has no array {' nor '.join(map(repr, missing))} "
            f"(it has {', '.join(names) or 'none'}): save it by np.savez_compressed(file, images=…, labels=…)"
        )
    return from_arrays(arrays["images"], arrays["labels"], ids=arrays.get("ids"), classes=classes, name=path.stem)


def _from_function(spec: str, limit: int | None, classes: int | None) -> Data:
    # Imported here, as it brings the machinery for models, which most specs do not need.
    from gauntlet.bench.models.importing import import_object

    found = import_object(spec)
    # A module may also hold the data set itself instead of a function that makes it.
    made = found() if callable(found) else found
    where, _, function = spec.rpartition(":")
    name = f"{Path(where).stem if where.endswith('.py') else where}:{function}"
    if isinstance(made, Data):
        return made
    if isinstance(made, tuple | list) and len(made) in (2, 3) and isinstance(made[0], Tensor | np.ndarray):
        images, labels, *rest = made
        return from_arrays(images, labels, ids=rest[0] if rest else None, classes=classes, name=name)
    if made is None or not (hasattr(made, "__getitem__") or hasattr(made, "__iter__")):
        raise ValueError(
            f"data function {spec!r} returned {type(made).__name__}: return (images, labels), (images, labels, ids), "
            "a torch Dataset or a DataLoader"
        )
    return from_dataset(made, limit, classes=classes, name=name)
