"""A cell as it was asked for: one model, defense, attack, threat model, data set and seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.registry.settings import Named
from gauntlet.bench.config.schema import DataRef, ModelRef
from gauntlet.leaderboard.results.record import CellInfo


@dataclass(frozen=True)
class Cell:
    """One model × defense × attack × threat model × data × seed, with all that is needed to run it."""

    info: CellInfo
    model: ModelRef
    defense: Named
    attack: Named
    threat: ThreatModel
    data: DataRef

    @cached_property
    def name(self) -> str:
        """Identity of the cell within a store, as a file name: it depends on the question, not on the result."""
        parts = (self.model, str(self.defense), self.info.attack_spec, str(self.threat), self.data, self.info.seed)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    @property
    def pipeline_name(self) -> str:
        """Identity of model, defense and data set within a store, as a file name: cells that share it share measurements.

        Also cells of other samples: measurements are keyed by the content that they were taken on.
        """
        return hashlib.sha256(repr((self.model, str(self.defense), self.data.spec)).encode()).hexdigest()[:32]
