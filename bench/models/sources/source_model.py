"""The result of a source: the model, its card, and a digest of its code for cache keys."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torch import nn

from gauntlet.bench.environment.provenance import package_version
from gauntlet.bench.models.parts.card import ModelCard
from gauntlet.leaderboard.results.record import Flag


@dataclass(frozen=True)
class SourceModel:
    """A model in eval mode from a source."""

    model: nn.Module
    card: ModelCard
    digest: str
    """Digest of the code that builds the model: a file's content, or a library's version."""
    remarks: tuple[Flag, ...] = ()


def library_digest(*names: str) -> str:
    """A digest for the code of libraries: sha256 of their names and versions."""
    return hashlib.sha256(" ".join(f"{name} {package_version(name)}" for name in names).encode()).hexdigest()
