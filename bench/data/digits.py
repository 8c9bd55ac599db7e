"""Scikit-learn's 1,797 handwritten digits, in a fixed split of 1,000 training and 797 test images.

Images are float32 (N, 1, 8, 8): pixel counts from 0 to 16, divided by 16. An id such as `digits/0042` is the index in
scikit-learn's data set. The order is that of the split, a random permutation, so that the first n images are a random
sample of all writers. A test holds the digest of bytes, labels and ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gauntlet.bench.data.samples.card import DataCard, DataEntry

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from gauntlet.bench.data.samples.dataset import Data

SPLIT_SEED = 0
TRAIN_SIZE = 1000


def load_digits_split(part: Literal["train", "test"]) -> Data:
    """Load a part of the fixed split: `train_test_split(train_size=1000, stratify=target, random_state=SPLIT_SEED)`.

    Raises FileNotFoundError if scikit-learn, whose file has the images, is not installed.
    """
    # Imported here, so that listing the data sets does not take seconds.
    import numpy as np
    import torch

    from gauntlet.bench.data.samples.dataset import Data

    pixels, labels = _read_file()
    train, test = stratified_split(labels)
    index = train if part == "train" else test
    name = "digits-train" if part == "train" else "digits"
    return Data(
        name=name,
        images=torch.from_numpy((pixels[index] / 16).astype(np.float32))[:, None],
        labels=torch.from_numpy(labels[index]),
        ids=tuple(f"digits/{i:04d}" for i in index),
        classes=10,
        spec=name,
        positions=tuple(range(len(index))),
    )


def _read_file() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pixel counts (1797, 8, 8) and labels (1797,), from the file that scikit-learn brings along.

    The file is read without importing scikit-learn, which would take longer than everything else in a short run.
    """
    import gzip
    from importlib.util import find_spec
    from pathlib import Path

    import numpy as np

    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the digits are read from a file of scikit-learn, which is not installed: install it")
    with gzip.open(Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].copy()


def stratified_split(labels: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices of the training and of the test part, in the order in which scikit-learn's `train_test_split` gives them.

    It draws the same random numbers in the same order: a part's size of each class, a permutation of each class, and one of
    each part.
    """
    import numpy as np

    generator = np.random.RandomState(SPLIT_SEED)
    counts = np.bincount(labels)
    train_counts = _class_sizes(counts, TRAIN_SIZE, generator)
    test_counts = _class_sizes(counts - train_counts, len(labels) - TRAIN_SIZE, generator)
    train: list[int] = []
    test: list[int] = []
    for label, (first, second) in enumerate(zip(train_counts, test_counts, strict=True)):
        shuffled = np.flatnonzero(labels == label)[generator.permutation(counts[label])].tolist()
        train += shuffled[:first]
        test += shuffled[first : first + second]
    return generator.permutation(train), generator.permutation(test)


def _class_sizes(counts: npt.NDArray[np.int64], n: int, generator: np.random.RandomState) -> npt.NDArray[np.int64]:
    """`n` samples shared among classes of `counts` samples: the largest remainders are rounded up, ties at random."""
    import numpy as np

    exact = counts / counts.sum() * n
    sizes = np.floor(exact)
    remainder = exact - sizes
    left = int(n - sizes.sum())
    for value in np.unique(remainder)[::-1]:
        if left == 0:
            break
        tied = np.flatnonzero(remainder == value)
        chosen = generator.choice(tied, size=min(len(tied), left), replace=False)
        sizes[chosen] += 1
        left -= len(chosen)
    whole: npt.NDArray[np.int64] = sizes.astype(np.int64)
    return whole


def _card(name: str, summary: str) -> DataCard:
    return DataCard(
        name=name,
        summary=summary,
        source="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), test part, by scikit-learn",
        licence="CC BY 4.0",
        classes=10,
        shape=(1, 8, 8),
    )


TEST = DataEntry(
    _card("digits", "797 handwritten digits, 8×8 grey, held out from digits-train"), lambda: load_digits_split("test")
)
TRAIN = DataEntry(
    _card("digits-train", "1,000 handwritten digits, 8×8 grey, for training only"), lambda: load_digits_split("train")
)
