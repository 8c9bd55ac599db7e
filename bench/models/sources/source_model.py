"""What a source gives: the model, its card, and what stands for its code in keys."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torch import nn

from gauntlet.bench.environment.provenance import package_version
from gauntlet.bench.models.parts.card import ModelCard
from gauntlet.leaderboard.results.record import Flag


@dataclass(frozen=True)
class SourceModel:
    """A model in eval mode, as its source builds it."""

    model: nn.Module
    card: ModelCard
    digest: str
    """Of what builds it: a file's content, or a library's version."""
    remarks: tuple[Flag, ...] = ()


def library_digest(*names: str) -> str:
    """Stands for the code of libraries: sha256 of their names and versions."""
    return hashlib.sha256(" ".join(f"{name} {package_version(name)}" for name in names).encode()).hexdigest()
