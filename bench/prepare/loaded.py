"""What a cell names, as objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.config.schema import DataRef, ModelRef
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.models.load_model import LoadedModel
from gauntlet.defenses.pipeline.card import DefenseEntry
from gauntlet.defenses.pipeline.defended_model import DefendedModel


@dataclass(frozen=True)
class Loaded:
    """The first step: what a cell names, as objects."""

    cell: Cell
    data: Data
    model: LoadedModel
    defense: DefenseEntry
    defense_digest: str
    pipeline: DefendedModel
    parts: Mapping[str, Any]
    """What identifies the pipeline in keys."""
    views: Mapping[str, nn.Module] = field(default_factory=dict)
    """Modules that stages can receive in place of the pipeline, by name."""

    @property
    def group(self) -> tuple[ModelRef, str, DataRef]:
        """Cells with the same group share what is measured."""
        return self.cell.model, str(self.cell.defense), self.cell.data
