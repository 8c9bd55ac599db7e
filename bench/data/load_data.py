"""Loading of the data that a user names: a registered name, a file, a folder or a function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gauntlet.attacks.registry.settings import Setting
from gauntlet.bench.data.catalog import DATA
from gauntlet.bench.data.data_name import FORMS, DataName, parse_data_name, path_settings
from gauntlet.bench.data.formats.catalog import read_path
from gauntlet.bench.data.formats.raw_data import RawData, to_data
from gauntlet.bench.data.formats.suffixes import is_data_file
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.data.samples.in_memory import from_arrays, from_dataset
from gauntlet.bench.data.samples.lazy_images import load_if_small
from gauntlet.bench.data.samples.preprocessing import PLAIN, Preprocessing, with_settings
from gauntlet.bench.data.samples.selection import last_needed, select


def load_data(spec: str, *, samples: str | int | None = None, classes: int | None = None) -> Data:
    """Load and validate the data set `spec`, with the samples that `samples` selects (see `selection.select`).

    `spec` is tried in this order: a registered name (`./name` means the file), optionally with a part, settings and the
    folder of its files (see `data_name`); `FILE.npz` with arrays `images`, `labels` and, optionally, `ids`; `FILE.parquet` or
    a folder of such files; a folder of images by class (see `image_folder.read_folder`), each optionally with settings of
    preprocessing in brackets; `module:function` or `path/to/file.py:function`, which is called without arguments and
    returns (images, labels), (images, labels, ids), a torch Dataset or a DataLoader. `classes` is the number of classes, for
    data whose labels alone do not show it.

    Images of more than `lazy_images.MEMORY_LIMIT` bytes are read when they are indexed. Raises ValueError for wrong data,
    LookupError for an unknown name and FileNotFoundError for a missing file; errors in the user's function are passed on.
    """
    known = parse_data_name(spec)
    path, settings = path_settings(spec) if known is None else (Path(), {})
    if known is not None:
        data = _registered(known, last_needed(samples), classes)
    elif path.is_dir() or is_data_file(path):
        data = _files(path, settings, spec, classes)
    elif ":" in spec:
        data = _from_function(spec, last_needed(samples), classes)
    else:
        _find(spec)
        data = _registered(DataName(spec), last_needed(samples), classes)
    chosen = select(data, samples)
    return replace(
        chosen,
        spec=spec,
        images=load_if_small(chosen.images),
        classes=chosen.classes if classes is None else classes,
    )


def _registered(known: DataName, limit: int | None, classes: int | None) -> Data:
    entry = known.entry
    # `parse_data_name` refuses a folder for sets without files.
    made = entry.load(**known.settings, **({"root": known.root} if known.root else {}))
    data = _as_data(made, known.name, known.name, None if known.part else limit, classes or entry.card.classes)
    if not known.part:
        return data
    assert entry.subset is not None
    return replace(entry.subset(data, known.part, known.root), name=known.title)


def _files(path: Path, settings: Mapping[str, Setting], spec: str, classes: int | None) -> Data:
    preprocessing = with_settings(PLAIN, settings)
    name = path.resolve().name if path.is_dir() else path.stem
    return to_data(
        _read(path, preprocessing),
        name=f"{name}({preprocessing})" if str(preprocessing) else name,
        spec=spec,
        classes=classes,
    )


def _read(path: Path, preprocessing: Preprocessing) -> RawData:
    if not path.exists():
        raise FileNotFoundError(f"data file {str(path)!r} does not exist: {FORMS}")
    return read_path(path, preprocessing)


def _find(spec: str) -> None:
    """Raise LookupError unless an installed plugin registers the name."""
    try:
        DATA.get(spec)
    except LookupError as error:
        raise LookupError(f"{error.args[0]}, and no file or folder has that name: {FORMS}") from None


def _from_function(spec: str, limit: int | None, classes: int | None) -> Data:
    # Imported here: most specs do not need it.
    from gauntlet.bench.registry.import_file import import_object, working_folder_kept

    imported = import_object(spec)
    with working_folder_kept():
        # A module may also hold the data set itself.
        made = imported() if callable(imported) else imported
    where, _, function = spec.rpartition(":")
    name = f"{Path(where).stem if where.endswith('.py') else where}:{function}"
    return _as_data(made, spec, name, limit, classes)


def _as_data(made: Any, spec: str, name: str, limit: int | None, classes: int | None) -> Data:
    """Convert the return value of a user's function. Raises ValueError."""
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
