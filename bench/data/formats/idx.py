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
from gauntlet.bench.data.formats.raw_data import RawData, unreadable_file
from gauntlet.bench.data.samples.preprocessing import PLAIN, Preprocessing
from gauntlet.bench.environment.size_limits import MOST_IN_MEMORY, MOST_LABELS, SizeLimitError, check_size

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
    pixels, targets = read_idx(images), read_idx(labels, most=MOST_LABELS)
    if pixels.ndim != 3 or targets.ndim != 1 or len(pixels) != len(targets) or not len(pixels):
        raise ValueError(
            f"data files {str(images)!r} and {str(labels)!r} have the shapes {pixels.shape} and {targets.shape}: they should "
            "be images (N, height, width) and as many labels (N,)"
        )
    return RawData(preprocessed_array(pixels[:, None], preprocessing), targets.astype(np.int64))


def read_idx(path: Path, most: int = MOST_IN_MEMORY) -> npt.NDArray[np.uint8]:
    """Read the array of a file with at most so many bytes; a plain file is mapped into memory. Raises ValueError."""
    content: npt.NDArray[np.uint8]
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                start = file.read(_LONGEST_HEADER)
                shape, at = _shape(path, start)
                check_size(f"an array of shape {shape}", math.prod(shape), most)
                # One byte more than there should be shows that there is more.
                rest = file.read(max(0, at + math.prod(shape) + 1 - len(start)))
            content = np.frombuffer(start + rest, np.uint8)
        else:
            content = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
            shape, at = _shape(path, bytes(content[:_LONGEST_HEADER]))
            check_size(f"an array of shape {shape}", math.prod(shape), most)
    except (OSError, EOFError, SizeLimitError, zlib.error) as error:
        raise unreadable_file(path, error, _SHOULD_BE) from error
    if len(content) - at != math.prod(shape):
        more = "more" if len(content) > at + math.prod(shape) else str(len(content))
        raise unreadable_file(path, f"for {shape} it should have {at + math.prod(shape)} bytes, not {more}", _SHOULD_BE)
    return content[at:].reshape(shape)


def _shape(path: Path, start: bytes) -> tuple[tuple[int, ...], int]:
    """The shape that a header states, and the header's length. Raises ValueError."""
    axes = start[3] if len(start) > 3 else 0
    at = 4 + 4 * axes
    if start[:3] != b"\0\0\x08" or not 1 <= axes <= 3 or len(start) < at:
        raise unreadable_file(path, f"it begins with {start[:4]!r}", _SHOULD_BE)
    return struct.unpack(f">{axes}I", start[4:at]), at
