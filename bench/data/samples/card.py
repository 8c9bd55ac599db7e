"""What the registry knows of an evaluation data set; imports nothing heavy, so that listing is quick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from gauntlet.bench.data.samples.dataset import Data


Subset: TypeAlias = "Callable[[Data, str, Path | None], Data]"
"""Of a full set, the part of that name; the path is where the set lies, if the user said so. Raises ValueError."""


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
    preprocessing: str = ""
    """What is done to the images of the files unless the name says otherwise; empty: nothing."""


@dataclass(frozen=True)
class DataEntry:
    """A registry entry: the card, and `load()`, the full data set with positions 0..N-1.

    `load` of a user may also return (images, labels), (images, labels, ids), a torch Dataset or a DataLoader.
    """

    card: DataCard
    load: Callable[..., Any]
    settings: tuple[str, ...] = ()
    """Keywords of `load`, as users write them in brackets: `name(split=train)`."""
    local: bool = False
    """Whether `load` takes `root`, the folder or file where the set lies, as users write it: `name@folder`."""
    told: Callable[[Mapping[str, Any]], str] = lambda settings: ", ".join(f"{k}={v}" for k, v in settings.items())
    """What tables say of these settings, in brackets behind the name. Raises ValueError for wrong ones."""
    subset: Subset | None = None
    """Makes the part that users write as `name/part`."""
    subsets: tuple[str, ...] = ()
    """What parts there are, for errors and listings."""
