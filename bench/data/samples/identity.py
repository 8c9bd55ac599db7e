"""The identity of data sets: figures may be compared only on the same data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from gauntlet.bench.data.samples.dataset import Data, block_digest, blocks
from gauntlet.leaderboard.gate.baseline import data_digest


@dataclass(frozen=True)
class DataIdentity:
    """Digests that identify a data set, whatever files it was read from."""

    n: int
    samples: str
    """sha256 over ids and labels, in order: the same for the same samples with another preprocessing."""
    pixels: str
    """sha256 over ids and the digests of their blocks, thus of every pixel; baselines store the same digest."""


def data_identity(data: Data) -> DataIdentity:
    """Compute the identity; every image is read once."""
    samples = json.dumps([list(data.ids), data.labels.tolist()])
    digests = [block_digest(data, indices) for indices in blocks(data)]
    return DataIdentity(len(data), hashlib.sha256(samples.encode()).hexdigest(), data_digest(digests, data.ids))


def compare_identities(first: DataIdentity, second: DataIdentity) -> str:
    """A sentence that says whether figures on both data sets are comparable."""
    if first == second:
        return f"The same {first.n} samples, pixel by pixel: figures are comparable."
    if first.samples == second.samples:
        return f"The same {first.n} samples with other pixels (preprocessing, files): figures are not comparable."
    return f"Other samples ({first.n} and {second.n}): figures are not comparable."
