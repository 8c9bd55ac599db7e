"""CIFAR-10 and CIFAR-100 in the original files: pickled batches, in a folder or in a .tar.gz.

Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. A batch is a dictionary with `data`, uint8
(N, 3072): 1,024 values of red, then green, then blue, row by row; and `labels` (CIFAR-10) or `fine_labels` (CIFAR-100).
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gauntlet.bench.data.formats.encoded_images import preprocessed_array
from gauntlet.bench.data.formats.raw_data import RawData, integer_labels, unreadable_file
from gauntlet.bench.data.formats.safe_pickle import read_pickled
from gauntlet.bench.data.samples.preprocessing import PLAIN, Preprocessing
from gauntlet.bench.environment.size_limits import MOST_IN_MEMORY, check_size

FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
ARCHIVES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}
BATCHES = {
    ("cifar10", "test"): ("test_batch",),
    ("cifar10", "train"): tuple(f"data_batch_{number}" for number in range(1, 6)),
    ("cifar100", "test"): ("test",),
    ("cifar100", "train"): ("train",),
}
_LABELS = ("labels", "fine_labels")


def read_batches(folder: Path, names: Sequence[str], preprocessing: Preprocessing = PLAIN) -> RawData:
    """Read and concatenate the batches of these names in a folder. Raises ValueError."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"folder {str(folder)!r} has no {', '.join(missing)}: download the whole set again")
    return _together([(folder / name, (folder / name).read_bytes()) for name in names], preprocessing)


def read_archive(path: Path, folder: str, names: Sequence[str], preprocessing: Preprocessing = PLAIN) -> RawData:
    """Read the batches from the original archive, without unpacking it to disk. Raises ValueError."""
    wanted = {f"{folder}/{name}": name for name in names}
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                # Also of a member that is passed over: its bytes are unpacked.
                check_size(f"the archive up to {member.name!r}", member.offset + member.size, MOST_IN_MEMORY)
                name = wanted.get(member.name.removeprefix("./"))
                if name is None or not member.isfile():
                    continue
                file = archive.extractfile(member)
                assert file is not None
                contents[name] = file.read()
                if len(contents) == len(wanted):
                    break
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise unreadable_file(path, error, "it should be the original archive; download it again") from error
    missing = [inside for inside, name in wanted.items() if name not in contents]
    if missing:
        raise unreadable_file(
            path, f"it has no {', '.join(missing)}", "it should be the original archive; download it again"
        )
    return _together([(path / folder / name, contents[name]) for name in names], preprocessing)


def _together(batches: Sequence[tuple[Path, bytes]], preprocessing: Preprocessing) -> RawData:
    pixels, labels = [], []
    for path, content in batches:
        batch = read_pickled(content, path)
        data = batch.get("data")
        key = next((label_key for label_key in _LABELS if label_key in batch), None)
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
            description = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
            raise unreadable_file(
                path, f"its `data` is {description}", "it should be uint8 (N, 3072), as in the original files"
            )
        if key is None:
            raise unreadable_file(
                path, f"it has {', '.join(batch) or 'nothing'}", "it should have labels or fine_labels"
            )
        batch_labels = integer_labels(batch[key], path)
        if len(batch_labels) != len(data):
            raise unreadable_file(
                path, f"it has {len(data)} images and {len(batch_labels)} labels", "download it again"
            )
        pixels.append(data.reshape(-1, 3, 32, 32))
        labels.append(batch_labels)
    # A single batch, such as a test set, is not copied.
    images = pixels[0] if len(pixels) == 1 else np.concatenate(pixels)
    return RawData(preprocessed_array(images, preprocessing), np.concatenate(labels))
