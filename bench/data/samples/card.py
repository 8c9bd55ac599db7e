"""The card and registry entry of a data set. Imports nothing heavy, so that listing is quick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from gauntlet.bench.data.samples.dataset import Data


Subset: TypeAlias = "Callable[[Data, str, Path | None], Data]"
"""Selects a part of a full set by its name; the path is the folder of the set, if the user named it. Raises ValueError."""


@dataclass(frozen=True)
class DataCard:
    """The description of a data set in listings."""

    name: str
    summary: str
    """One line."""
    source: str
    """Paper or collection, and where the files are distributed."""
    licence: str
    classes: int
    shape: tuple[int, int, int]
    """Shape of an image: channels, height, width."""
    preprocessing: str = ""
    """Default preprocessing of the images; empty for none."""


@dataclass(frozen=True)
class DataEntry:
    """A registry entry: the card, and `load()`, which returns the full data set with positions 0..N-1.

    A user's `load` may also return (images, labels), (images, labels, ids), a torch Dataset or a DataLoader.
    """

    card: DataCard
    load: Callable[..., Any]
    settings: tuple[str, ...] = ()
    """Keywords of `load`, which users write in brackets: `name(split=train)`."""
    local: bool = False
    """Whether `load` takes `root`, the folder or file of the set, which users write as `name@folder`."""
    describe: Callable[[Mapping[str, Any]], str] = lambda settings: ", ".join(f"{k}={v}" for k, v in settings.items())
    """The text for these settings in tables, in brackets after the name. Raises ValueError for wrong settings."""
    subset: Subset | None = None
    """Selects the part that users write as `name/part`."""
    subsets: tuple[str, ...] = ()
    """Forms of the names of parts, for errors and listings."""
