"""Whether two data sets are the same: figures may be compared only where they are."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from gauntlet.bench.data.samples.dataset import Data, block_digest, blocks
from gauntlet.leaderboard.gate.baseline import data_digest


@dataclass(frozen=True)
class DataIdentity:
    """What a data set is, whatever files it came from."""

    n: int
    samples: str
    """sha256 over ids and labels, in order: which samples, however prepared."""
    pixels: str
    """sha256 over ids and the digests of their blocks, so of every pixel; baselines hold the same one."""


def data_identity(data: Data) -> DataIdentity:
    """Reads every image once."""
    samples = json.dumps([list(data.ids), data.labels.tolist()])
    digests = [block_digest(data, indices) for indices in blocks(data)]
    return DataIdentity(len(data), hashlib.sha256(samples.encode()).hexdigest(), data_digest(digests, data.ids))


def compare_identities(one: DataIdentity, other: DataIdentity) -> str:
    """A sentence that says whether figures on both may be compared."""
    if one == other:
        return f"The same {one.n} samples, pixel by pixel: figures are comparable."
    if one.samples == other.samples:
        return f"The same {one.n} samples with other pixels (preprocessing, files): figures are not comparable."
    return f"Other samples ({one.n} and {other.n}): figures are not comparable."
