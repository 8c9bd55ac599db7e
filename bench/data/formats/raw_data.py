"""The result of a reader: images and labels before validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.data.samples.lazy_images import Images


@dataclass(frozen=True, eq=False)
class RawData:
    """Images with their labels, in the order of the files, not yet validated."""

    images: Images
    labels: npt.NDArray[np.int64]
    names: tuple[str, ...] | None = None
    """Names of the samples in the files; None if there are none."""
    classes: int | None = None
    """Number of classes, if the files state it."""
    class_names: tuple[str, ...] = ()
    """Names of the classes, in the order of the labels, if the files have them."""


def to_data(
    raw: RawData, *, name: str, spec: str, classes: int | None = None, ids: tuple[str, ...] | None = None
) -> Data:
    """Validate the data without reading the images. `ids`: default the names in the files, else `0`, `1`, ….

    `classes`: default the number that the files state, else the largest label plus 1. Raises ValueError.
    """
    if classes is not None and raw.classes is not None and classes < raw.classes:
        raise ValueError(f"classes={classes!r} is less than the {raw.classes} classes of data {name!r}")
    highest = int(raw.labels.max()) if len(raw.labels) else 0
    sample_names = ids or raw.names
    return Data(
        name=name,
        images=raw.images,
        labels=torch.from_numpy(raw.labels),
        ids=tuple(map(str, range(len(raw.labels)))) if sample_names is None else sample_names,
        classes=classes or raw.classes or max(highest + 1, 2),
        spec=spec,
        positions=tuple(range(len(raw.labels))),
        class_names=raw.class_names,
    )


def unreadable_file(path: Path, why: object, instead: str) -> ValueError:
    """The error for a file that cannot be read: `instead` says what it should be, or what to do."""
    reason = " ".join(str(why).split()) or type(why).__name__
    return ValueError(f"data file {str(path)!r} cannot be read ({reason}): {instead}")


def integer_labels(values: Any, path: Path) -> npt.NDArray[np.int64]:
    """Convert labels to int64 (N,). Raises ValueError unless they are whole numbers."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise unreadable_file(
            path, f"its labels are {array.dtype} {array.shape}", "labels should be one whole number per image"
        )
    return array.astype(np.int64)
