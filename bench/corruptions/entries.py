"""Corruptions as entries of the registry of attacks: what a plan and a key must know of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

from gauntlet.attacks.ops.threat import NORMS, ThreatModel
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.bench.corruptions.catalog import CORRUPTIONS, SEVERITIES
from gauntlet.bench.corruptions.severity_tables import TABLES

PREFIX = "corruption."
_SOURCE = "Hendrycks and Dietterich 2019, arXiv 1903.12261"


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One corruption at one severity or, by default, at all five; no threat model has a say in it.

    `table`: `auto` takes the strengths that fit the size of the images; `cifar`, `tiny-imagenet` and `imagenet` name them.
    """

    name: str
    severity: int | None = None
    table: str = "auto"
    library: str = ""
    """The library that has a part in the images, with its version; empty where none has."""

    version: ClassVar[int] = 1
    """Rises whenever an image changes: it is part of the key of stored results."""

    def __post_init__(self) -> None:
        """Raises ValueError for a setting out of range."""
        if self.severity is not None and (isinstance(self.severity, bool) or self.severity not in SEVERITIES):
            raise ValueError(f"severity={self.severity!r} must be 1 to 5, or be left out for all five")
        if self.table not in ("auto", *TABLES):
            raise ValueError(f"table={self.table!r} is not known: use auto, {', '.join(TABLES)}")

    @property
    def severities(self) -> tuple[int, ...]:
        """Those at which each image is corrupted."""
        return SEVERITIES if self.severity is None else (self.severity,)


def build(name: str, /, threat: ThreatModel, **settings: Any) -> Corruption:
    """The corruption of that name. Raises ValueError for bad settings, and where a library is missing that it needs."""
    unknown = [setting for setting in settings if setting not in ("severity", "table")]
    if unknown:
        raise ValueError(f"{PREFIX}{name} has no setting {unknown[0]!r}: it has severity, table")
    return Corruption(name=name, library=_library(name), **settings)


def _library(name: str) -> str:
    for library in CORRUPTIONS[name].uses:
        try:
            return f"{library} {version(library)}"
        except PackageNotFoundError:
            continue
    if CORRUPTIONS[name].uses:
        raise ValueError(
            f"{PREFIX}{name} needs the library {CORRUPTIONS[name].uses[0]}: pip install 'robust-gauntlet[corruptions]'"
        )
    return ""


def entry(name: str) -> AttackEntry:
    """The registry's entry of a corruption."""
    kind = CORRUPTIONS[name]
    summary = f"{kind.summary}, at severities 1 to 5"
    card = AttackCard(name=f"{PREFIX}{name}", summary=summary, source=_SOURCE, norms=NORMS, kind="corruption")
    return AttackEntry(card, partial(build, name))
