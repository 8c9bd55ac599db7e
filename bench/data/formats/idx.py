"""The idx format of MNIST and Fashion-MNIST, plain or gzipped.

LeCun, Cortes, Burges, The MNIST database of handwritten digits. Two zero bytes, a byte for the type (8: unsigned bytes),
a byte for the number of axes, the length of each axis as a big-endian 32-bit number, the values.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gauntlet.bench.data.formats.encoded_images import preprocessed_array
from gauntlet.bench.data.formats.raw_data import RawData, read_limited, unreadable_file
from gauntlet.bench.data.samples.preprocessing import PLAIN, Preprocessing

STEMS = {"test": "t10k", "train": "train"}
_SHOULD_BE = "it should be an idx file of unsigned bytes, plain or gzipped; download it again"
_LONGEST_HEADER = 16


def find_pair(folder: Path, split: str) -> tuple[Path, Path] | None:
    """The files of images and labels in a folder, under their original names with `-idx3-` or `.idx3-`; None if missing."""
    paths: list[Path] = []
    for kind in ("images{}idx3", "labels{}idx1"):
        names = (f"{STEMS[split]}-{kind.format(mark)}-ubyte{end}" for mark in ("-", ".") for end in ("", ".gz"))
        paths += [folder / name for name in names if (folder / name).is_file()][:1]
    return (paths[0], paths[1]) if len(paths) == 2 else None


def read_idx_pair(images: Path, labels: Path, preprocessing: Preprocessing = PLAIN) -> RawData:
    """Read grey images with their labels. Raises ValueError for files that do not match or are damaged."""
    pixels, targets = read_idx(images), read_idx(labels)
    if pixels.ndim != 3 or targets.ndim != 1 or len(pixels) != len(targets) or not len(pixels):
        raise ValueError(
            f"data files {str(images)!r} and {str(labels)!r} have the shapes {pixels.shape} and {targets.shape}: they should "
            "be images (N, height, width) and as many labels (N,)"
        )
    return RawData(preprocessed_array(pixels[:, None], preprocessing), targets.astype(np.int64))


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read the array of a file; a plain file is mapped into memory. Raises ValueError."""
    content: npt.NDArray[np.uint8]
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                content = np.frombuffer(read_limited(file.read), np.uint8)
        else:
            content = np.memmap(path, np.uint8, "r")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise unreadable_file(path, error, _SHOULD_BE) from error
    start = bytes(content[:_LONGEST_HEADER])
    axes = start[3] if len(start) > 3 else 0
    at = 4 + 4 * axes
    if start[:3] != b"\0\0\x08" or not 1 <= axes <= 3 or len(start) < at:
        raise unreadable_file(path, f"it begins with {start[:4]!r}", _SHOULD_BE)
    shape = struct.unpack(f">{axes}I", start[4:at])
    if len(content) - at != math.prod(shape):
        raise unreadable_file(
            path, f"for {shape} it should have {at + math.prod(shape)} bytes, not {len(content)}", _SHOULD_BE
        )
    return content[at:].reshape(shape)
