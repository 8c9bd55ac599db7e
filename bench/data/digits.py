"""Scikit-learn's 1,797 handwritten digits, in a fixed split of 1,000 training and 797 test images.

Images are float32 (N, 1, 8, 8): pixel counts from 0 to 16, divided by 16. An id such as `digits/0042` is the index in
scikit-learn's data set. The order is that of the split, a random permutation, so that the first n images are a random
sample of all writers. A test holds the digest of bytes, labels and ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gauntlet.bench.data.samples.card import DataCard, DataEntry

if TYPE_CHECKING:
    from gauntlet.bench.data.samples.dataset import Data

SPLIT_SEED = 0
TRAIN_SIZE = 1000


def load_digits_split(part: Literal["train", "test"]) -> Data:
    """Load a part of the fixed split: `train_test_split(train_size=1000, stratify=target, random_state=SPLIT_SEED)`."""
    # Imported here, so that listing the data sets does not take seconds.
    import numpy as np
    import torch
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from gauntlet.bench.data.samples.dataset import Data

    bunch = load_digits()
    train, test = train_test_split(
        np.arange(len(bunch.target)), train_size=TRAIN_SIZE, stratify=bunch.target, random_state=SPLIT_SEED
    )
    index = train if part == "train" else test
    name = "digits-train" if part == "train" else "digits"
    return Data(
        name=name,
        images=torch.from_numpy((bunch.images[index] / 16).astype(np.float32))[:, None],
        labels=torch.from_numpy(bunch.target[index].astype(np.int64)),
        ids=tuple(f"digits/{i:04d}" for i in index),
        classes=10,
        spec=name,
        positions=tuple(range(len(index))),
    )


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
