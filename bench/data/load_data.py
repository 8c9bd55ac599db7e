"""Data as users name them on the command line: registered names, files, folders, functions of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gauntlet.attacks.registry.settings import Setting
from gauntlet.bench.data.catalog import DATA
from gauntlet.bench.data.data_name import DataName, parse_data_name, path_settings
from gauntlet.bench.data.formats.image_folder import read_folder
from gauntlet.bench.data.formats.npz import read_npz
from gauntlet.bench.data.formats.parquet import ordered_shards, read_parquet
from gauntlet.bench.data.formats.raw_data import RawData, to_data
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.data.samples.in_memory import from_arrays, from_dataset
from gauntlet.bench.data.samples.lazy_images import load_if_small
from gauntlet.bench.data.samples.preprocessing import PLAIN, Preprocessing, with_settings
from gauntlet.bench.data.samples.selection import last_needed, select

FORMS = (
    "write a registered name, FILE.npz with arrays images and labels, FILE.parquet, a folder with one sub-folder a class or "
    "with Parquet files, or module:function or path/to/file.py:function"
)


def load_data(spec: str, *, samples: str | int | None = None, classes: int | None = None) -> Data:
    """The data that `spec` names, validated, with the samples that `samples` names (see `selection.select`).

    `spec` is looked up in this order: a registered name (`./name` means the file), perhaps with a part, settings and the
    folder where it lies (see `naming`); `FILE.npz` with arrays `images`, `labels` and, optionally, `ids`; `FILE.parquet` or a
    folder of such files; a folder of images by class (see `formats.folder.read_folder`), each with settings of
    preprocessing in brackets; `module:function` or `path/to/file.py:function`, which is called without arguments and
    returns (images, labels), (images, labels, ids), a torch Dataset or a DataLoader. `classes` says how many classes there
    are where the labels alone do not show it.

    What takes more than `images.HELD` bytes is read when it is indexed. Raises ValueError for data that are wrong,
    LookupError for a spec that names nothing, FileNotFoundError for a file that is not there; errors inside the user's own
    function are passed on.
    """
    known = parse_data_name(spec)
    path, settings = path_settings(spec) if known is None else (Path(), {})
    if known is not None:
        data = _registered(known, last_needed(samples), classes)
    elif path.is_dir() or path.suffix.lower() in (".npz", ".parquet"):
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
    # A folder is only for those that have files, as `parse_data_name` has seen to.
    made = entry.load(**known.settings, **({"root": known.root} if known.root else {}))
    data = _as_data(made, known.name, known.name, None if known.part else limit, classes or entry.card.classes)
    if not known.part:
        return data
    assert entry.subset is not None
    return replace(entry.subset(data, known.part, known.root), name=known.title)


def _files(path: Path, settings: Mapping[str, Setting], spec: str, classes: int | None) -> Data:
    how = with_settings(PLAIN, settings)
    name = path.resolve().name if path.is_dir() else path.stem
    return to_data(_read(path, how), name=f"{name}({how})" if str(how) else name, spec=spec, classes=classes)


def _read(path: Path, how: Preprocessing) -> RawData:
    if path.is_dir():
        files = list(path.glob("*.parquet"))
        return read_parquet(ordered_shards(files), how) if files else read_folder(path, how)
    if not path.is_file():
        raise FileNotFoundError(f"data file {str(path)!r} is not there: {FORMS}")
    return read_npz(path, how) if path.suffix.lower() == ".npz" else read_parquet([path], how)


def _find(spec: str) -> None:
    """Look among what is installed, where names may appear once it is loaded. Raises LookupError."""
    try:
        DATA.get(spec)
    except LookupError as error:
        raise LookupError(f"{error.args[0]}, and no file or folder has that name: {FORMS}") from None


def _from_function(spec: str, limit: int | None, classes: int | None) -> Data:
    # Imported here, as it brings the machinery for models, which most specs do not need.
    from gauntlet.bench.registry.import_file import import_object

    imported = import_object(spec)
    # A module may also hold the data set itself instead of a function that makes it.
    made = imported() if callable(imported) else imported
    where, _, function = spec.rpartition(":")
    name = f"{Path(where).stem if where.endswith('.py') else where}:{function}"
    return _as_data(made, spec, name, limit, classes)


def _as_data(made: Any, spec: str, name: str, limit: int | None, classes: int | None) -> Data:
    """What a user's function returned, as data. Raises ValueError."""
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
