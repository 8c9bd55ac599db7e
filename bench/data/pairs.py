"""Pairs of handwritten digits side by side: 8×16 images of a hundred classes, made of the digits of `digits.py`.

The class of a pair is the number that it shows: ten times the left digit plus the right one. Test pairs are of test digits,
training pairs of training digits. Each test digit is once on the left and once on the right, each training digit five times.
An id such as `pairs/0042-1007` names the two digits by their index in scikit-learn's set. The images are put together in
memory, so that no file is needed; a test holds the digest of bytes, labels and ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gauntlet.bench.data.digits import load_digits_split
from gauntlet.bench.data.samples.card import DataCard, DataEntry

if TYPE_CHECKING:
    from gauntlet.bench.data.samples.dataset import Data

ROUNDS = {"train": 5, "test": 1}
"""How often each digit is on either side."""
_SEEDS = {"train": 1, "test": 2}


def load_pairs(part: Literal["train", "test"]) -> Data:
    """Load a part of the pairs: images float32 (N, 1, 8, 16) in [0, 1], labels from 0 to 99; N is 797 or 5,000.

    Raises FileNotFoundError if scikit-learn, whose file has the digits, is not installed.
    """
    # Imported here, so that listing the data sets does not take seconds.
    import numpy as np
    import torch

    from gauntlet.bench.data.samples.dataset import Data

    digits = load_digits_split(part)
    # A generator whose numbers are the same in every version of numpy.
    generator = np.random.RandomState(_SEEDS[part])
    first, second = generator.permutation(len(digits)), generator.permutation(len(digits))
    # In each round the right side moves on by one digit, so that no pair occurs twice.
    left = torch.from_numpy(np.concatenate([first] * ROUNDS[part]))
    right = torch.from_numpy(np.concatenate([np.roll(second, shift) for shift in range(ROUNDS[part])]))
    name = "pairs-train" if part == "train" else "pairs"
    numbers = [one.removeprefix("digits/") for one in digits.ids]
    return Data(
        name=name,
        images=torch.cat([digits.images[left], digits.images[right]], dim=3),
        labels=10 * digits.labels[left] + digits.labels[right],
        ids=tuple(f"pairs/{numbers[a]}-{numbers[b]}" for a, b in zip(left.tolist(), right.tolist(), strict=True)),
        classes=100,
        spec=name,
        positions=tuple(range(len(left))),
    )


def _card(name: str, summary: str) -> DataCard:
    return DataCard(
        name=name,
        summary=summary,
        source="pairs of this project, of Alpaydin and Kaynak's digits (UCI, 1998), test part, by scikit-learn",
        licence="CC BY 4.0",
        classes=100,
        shape=(1, 8, 16),
    )


TEST = DataEntry(
    _card("pairs", "797 pairs of handwritten digits, 8×16 grey, a hundred classes, held out from pairs-train"),
    lambda: load_pairs("test"),
)
TRAIN = DataEntry(
    _card("pairs-train", "5,000 pairs of handwritten digits, 8×16 grey, a hundred classes, for training only"),
    lambda: load_pairs("train"),
)
