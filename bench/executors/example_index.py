"""Replay: adversarial examples that the store holds against other models and defenses, tried on this one.

Carlini et al. 2019 (arXiv 1902.06705), section 4.5: try transferability attacks. A replay is a cell of its own, keyed by the
examples that it tries; what it finds is not replayed again, so that a second run finds what the first found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gauntlet.attacks.ops.norms import limit
from gauntlet.attacks.ops.threat import Norm, ThreatModel
from gauntlet.attacks.ops.validators import whole_number
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.record import CellInfo
from gauntlet.leaderboard.results.store import Store

Examples = Mapping[str, Sequence[npt.NDArray[Any]]]
"""Candidates (C, H, W) by the id of the sample."""

_LEFT_OUT = ("naive", "transfer")


@dataclass(frozen=True, kw_only=True)
class Replay:
    """At most `most` examples a sample, those against the same model behind other defenses first."""

    threat: ThreatModel
    most: int = 8
    examples: Examples = field(default_factory=dict, repr=False, compare=False)

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        whole_number("most", self.most, 1)


class Shelf:
    """The adversarial examples of a store, read once a block, as far as they fit into half a GiB."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._infos: dict[str, CellInfo | None] = {}
        self._kept: dict[str, dict[str, tuple[float, npt.NDArray[Any]]]] = {}
        self._bytes = 0

    def load(self, attack: Replay, cell: CellInfo, ids: Sequence[str]) -> Replay:
        """The replay with the examples that fit a cell: inside its ball, against other models or defenses."""
        keys = self._store.stored_keys()
        self._infos |= {key: self._info(key) for key in keys if key not in self._infos}
        fitting = [key for key in keys if (info := self._infos[key]) is not None and _fits(info, cell)]
        wanted, most = set(ids), limit(attack.threat)
        found: dict[str, list[npt.NDArray[Any]]] = {}
        for key in sorted(fitting, key=lambda key: (getattr(self._infos[key], "model", "") != cell.model, key)):
            for name, (distance, image) in self._block(key).items():
                some = found.setdefault(name, [])
                if name in wanted and distance <= most and len(some) < attack.most:
                    some.append(image)
        return replace(attack, examples={name: some for name, some in found.items() if some})

    def _info(self, key: str) -> CellInfo | None:
        # A damaged block, or one that another version wrote, is no reason to fail here: its own cell says so.
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
        block = {name: (distance, image) for name, distance, image in triples if image is not None}
        size = sum(image.nbytes for _, image in block.values())
        if self._bytes + size <= 2**29:
            self._kept[key] = block
            self._bytes += size
        return block


def _fits(info: CellInfo, cell: CellInfo) -> bool:
    other = (info.model, info.defense) != (cell.model, cell.defense)
    return other and info.norm == cell.norm and info.attack_kind not in _LEFT_OUT


def digest(attack: Replay, ids: Sequence[str]) -> str:
    """sha256 over the examples of these samples."""
    found = hashlib.sha256()
    for name in ids:
        for image in attack.examples.get(name, ()):
            found.update(f"{name}\0{image.dtype.str}{image.shape}".encode())
            found.update(np.ascontiguousarray(image).tobytes())
    return found.hexdigest()


def build(threat: ThreatModel, *, most: int = 8) -> Replay:
    """A replay for that threat model. Raises ValueError for bad settings."""
    return Replay(threat=threat, most=most)


_NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")

ENTRY = AttackEntry(
    AttackCard(
        name="replay",
        summary="examples that the results folder holds against other models and defenses",
        source="Carlini et al. 2019, arXiv 1902.06705, section 4.5",
        norms=_NORMS,
        kind="transfer",
    ),
    build,
)
