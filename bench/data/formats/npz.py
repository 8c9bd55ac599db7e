"""NumPy archives with the arrays `images`, `labels` and, optionally, `ids`; large images are mapped into memory.

Nothing is unpickled, so reading a file does not run code from it.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gauntlet.bench.data.formats.encoded_images import preprocessed_array
from gauntlet.bench.data.formats.raw_data import RawData, integer_labels
from gauntlet.bench.data.samples.dataset import check_bytes, check_images_shape
from gauntlet.bench.data.samples.in_memory import text_ids
from gauntlet.bench.data.samples.lazy_images import MEMORY_LIMIT
from gauntlet.bench.data.samples.preprocessing import PLAIN, Preprocessing
from gauntlet.bench.environment.size_limits import MOST_IN_MEMORY, MOST_LABELS, check_size, check_unpacked

NAMES = ("images", "labels", "ids")


def npz_arrays(path: Path, *, held: int = MEMORY_LIMIT) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an archive, at least `images` and `labels`.

    Images of more than `held` bytes are mapped from a copy in the folder for temporary files (TMPDIR), which is deleted
    when the process ends. Raises ValueError for a damaged file or a missing array.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    name = ""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it contains a single array, as np.save writes it")
            with archive:
                names = archive.files
                for name in NAMES:
                    if name in names:
                        arrays[name] = _array(archive, name, held)
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        where = f"array {name!r} of " if name else ""
        raise ValueError(
            f"{where}data file {str(path)!r} cannot be read ({error}): save it by np.savez_compressed(file, "
            "images=…, labels=…, ids=…), ids as an array of strings, no Python objects"
        ) from error
    missing = [array_name for array_name in NAMES[:2] if array_name not in arrays]
    if missing:
        raise ValueError(
            f"data file {str(path)!r} has no array {' nor '.join(map(repr, missing))} "
            f"(it has {', '.join(names) or 'none'}): save it by np.savez_compressed(file, images=…, labels=…)"
        )
    return arrays


def _array(archive: Any, name: str, held: int) -> npt.NDArray[Any]:
    """An array of the archive, mapped if it is that of the images and larger than `held`. Raises SizeLimitError and others."""
    size: int = archive.zip.getinfo(f"{name}.npy").file_size
    if name == "images" and size > held:
        check_unpacked("it", size)
        return _mapped(archive.zip, name)
    check_size("it", size, MOST_IN_MEMORY if name == "images" else MOST_LABELS)
    with archive.zip.open(f"{name}.npy") as packed:
        shape, _, dtype = _header(packed)
    # numpy allocates what the header claims before it reads.
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"its header claims {shape} of {dtype}, and it has {size} bytes")
    array: npt.NDArray[Any] = archive[name]
    return array


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    found: tuple[tuple[int, ...], bool, np.dtype[Any]] = header(file)
    return found


def _mapped(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    # zipfile checks the content while copying. The file is already unlinked and is freed with the last reference.
    with tempfile.TemporaryFile(prefix="gauntlet-") as copy:
        with archive.open(f"{name}.npy") as packed:
            shutil.copyfileobj(packed, copy, 2**20)
        copy.seek(0)
        shape, fortran, dtype = _header(copy)
        if dtype.hasobject:
            raise ValueError("it contains Python objects")
        return np.memmap(copy, dtype, "r", copy.tell(), shape, "F" if fortran else "C")


def read_npz(path: Path, preprocessing: Preprocessing = PLAIN, *, held: int = MEMORY_LIMIT) -> RawData:
    """Read images (N, C, H, W), or (N, H, W) for one channel, with labels; ids become names. Raises ValueError."""
    arrays = npz_arrays(path, held=held)
    images, ids = arrays["images"], arrays.get("ids")
    if images.ndim == 3:
        images = images[:, None]
    check_images_shape(images)
    check_bytes(images)
    return RawData(
        images=preprocessed_array(images, preprocessing),
        labels=integer_labels(arrays["labels"], path),
        names=None if ids is None else text_ids(ids),
    )
