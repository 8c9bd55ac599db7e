"""An index of the adversarial examples in a store, for replays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from gauntlet.attacks.ops.threat import ThreatModel, limit
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.record import CellInfo
from gauntlet.leaderboard.results.store import Store

Examples = Mapping[str, Sequence[npt.NDArray[Any]]]
"""Candidates (C, H, W) by the id of the sample."""
FindExamples = Callable[[ThreatModel, int, CellInfo, Sequence[str]], Examples]
"""Looks up stored examples, as `ExampleIndex.load` does."""

_MEMORY_LIMIT = 2**29
"""Bytes of examples that are kept in memory."""


class ExampleIndex:
    """The adversarial examples of a store. Blocks are kept in memory after the first read, up to half a GiB."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._infos: dict[str, CellInfo | None] = {}
        self._kept: dict[str, dict[str, tuple[float, npt.NDArray[Any]]]] = {}
        self._bytes = 0

    def load(self, threat: ThreatModel, most: int, cell: CellInfo, ids: Sequence[str]) -> Examples:
        """At most `most` examples for each sample, within the cell's ball and against other models or defenses.

        Examples against the same model behind other defenses come first.
        """
        keys = self._store.stored_keys()
        self._infos |= {key: self._info(key) for key in keys if key not in self._infos}
        infos = {key: info for key in keys if (info := self._infos[key]) is not None and _fits(info, cell)}
        wanted, radius = set(ids), limit(threat)
        examples: dict[str, list[npt.NDArray[Any]]] = {}

        def order(key: str) -> tuple[object, ...]:
            info = infos[key]
            source = repr((info.model, info.defense, info.attack_spec, info.threat, info.data, info.seed))
            # A fixed order that mixes sources, and does not depend on what else is part of a key.
            return info.model != cell.model, hashlib.sha256(source.encode()).hexdigest(), key

        for key in sorted(infos, key=order):
            for sample, (distance, image) in self._block(key).items():
                if sample in wanted and distance <= radius and len(examples.get(sample, ())) < most:
                    examples.setdefault(sample, []).append(image)
        return examples

    def _info(self, key: str) -> CellInfo | None:
        # A damaged block, or a block of another version, is reported by its own cell.
        try:
            return self._store.info(key)
        except StoreError:
            return None

    def _block(self, key: str) -> dict[str, tuple[float, npt.NDArray[Any]]]:
        if key in self._kept:
            return self._kept[key]
        try:
            samples = self._store.read(key, adversarial=True).samples
        except StoreError:
            return {}
        triples = zip(samples.id.tolist(), samples.distance.tolist(), samples.adversarial, strict=True)
        block = {sample: (distance, image) for sample, distance, image in triples if image is not None}
        size = sum(image.nbytes for _, image in block.values())
        if self._bytes + size <= _MEMORY_LIMIT:
            self._kept[key] = block
            self._bytes += size
        return block


def _fits(info: CellInfo, cell: CellInfo) -> bool:
    other = (info.model, info.defense) != (cell.model, cell.defense)
    return other and info.norm == cell.norm and info.replayable
