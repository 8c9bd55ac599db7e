"""What the registry knows of an evaluation data set; imports nothing heavy, so that listing is quick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gauntlet.bench.data.dataset import Data


@dataclass(frozen=True)
class DataCard:
    """What a data set is, for listings."""

    name: str
    summary: str
    """One line."""
    source: str
    """Paper or collection, and what hands the files out."""
    licence: str
    classes: int
    shape: tuple[int, int, int]
    """Of one image: channels, height, width."""


@dataclass(frozen=True)
class DataEntry:
    """A registry entry: the card, and `load()`, the full data set with positions 0..N-1."""

    card: DataCard
    load: Callable[[], Data]
