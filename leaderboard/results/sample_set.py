"""The ids and labels of samples, kept once however many cells cover the same samples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class SampleSet:
    """Samples in order. Two sets with the same content are the same object, if both come from `sample_set`."""

    id: npt.NDArray[np.str_]
    label: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.id)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The ids as texts."""
        return tuple(self.id.tolist())

    @cached_property
    def unique(self) -> bool:
        """Whether no id occurs twice."""
        return len(set(self.names)) == len(self)


_KNOWN: WeakValueDictionary[bytes, SampleSet] = WeakValueDictionary()


def sample_set(ids: npt.NDArray[np.str_], label: npt.NDArray[np.int64]) -> SampleSet:
    """The set of these samples: ids and labels, both (N,)."""
    digest = hashlib.sha256(json.dumps(ids.tolist()).encode())
    digest.update(np.ascontiguousarray(label).tobytes())
    known = _KNOWN.get(digest.digest())
    if known is None:
        known = _KNOWN[digest.digest()] = SampleSet(ids, label)
    return known


def numbered(sets: Sequence[SampleSet]) -> tuple[int, list[npt.NDArray[np.intp]]]:
    """Number all samples of several sets by their ids: how many different ones there are, and each set's samples by number.

    Numbers follow first appearance.
    """
    first = sets[0]
    if first.unique and all(other is first for other in sets):
        return len(first), [np.arange(len(first))] * len(sets)
    numbers: dict[str, int] = {}
    places = {
        one: np.array([numbers.setdefault(name, len(numbers)) for name in one.names], dtype=np.intp)
        for one in dict.fromkeys(sets)
    }
    return len(numbers), [places[one] for one in sets]
