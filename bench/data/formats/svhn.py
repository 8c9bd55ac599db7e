"""The cropped digits of SVHN, as MATLAB files.

Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning, 2011. `X` is uint8 (32, 32, 3, N),
`y` the label (N, 1), where 10 stands for the digit 0.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from gauntlet.bench.data.formats.encoded_images import preprocessed_array
from gauntlet.bench.data.formats.raw_data import RawData, integer_labels, unreadable_file
from gauntlet.bench.data.samples.preprocessing import PLAIN, Preprocessing
from gauntlet.bench.environment.size_limits import MOST_IN_MEMORY, MOST_LABELS, check_size

FILES = {"test": "test_32x32.mat", "train": "train_32x32.mat"}
_SHOULD_BE = "it should be one of the original files, test_32x32.mat or train_32x32.mat; download it again"


def read_svhn(path: Path, preprocessing: Preprocessing = PLAIN) -> RawData:
    """Read images with the digits as labels. Raises ValueError for a damaged or other file."""
    from scipy.io import loadmat, whosmat

    try:
        for name, shape, _ in whosmat(path):
            most = MOST_IN_MEMORY if name == "X" else MOST_LABELS
            check_size(
                f"its array {name} of shape {shape}", math.prod(shape), most if name in ("X", "y") else MOST_IN_MEMORY
            )
        arrays: dict[str, Any] = loadmat(path, variable_names=["X", "y"])
        images, labels = arrays["X"], arrays["y"]
    except Exception as error:  # a damaged file may raise anything in scipy
        raise unreadable_file(path, error, _SHOULD_BE) from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[2] != 3 or labels.shape != (images.shape[3], 1):
        raise unreadable_file(path, f"X is {images.dtype} {images.shape} and y is {labels.shape}", _SHOULD_BE)
    digits = integer_labels(labels[:, 0], path)
    return RawData(preprocessed_array(images.transpose(3, 2, 0, 1), preprocessing), np.where(digits == 10, 0, digits))
