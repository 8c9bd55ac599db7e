"""Listing what is registered, and registering one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gauntlet.bench.models.card import ModelCard, ModelEntry
from gauntlet.bench.outside import caller
from gauntlet.bench.registries import ATTACKS, DATA, DEFENSES, MODELS

if TYPE_CHECKING:
    from torch import nn

    from gauntlet.attacks.registry.card import AttackEntry
    from gauntlet.bench.data.card import DataEntry
    from gauntlet.defenses.pipeline.card import DefenseEntry


def list_models(pattern: str = "*") -> list[str]:
    """Names of registered models that match a shell wildcard, sorted; nothing is built."""
    return MODELS.names(pattern)


def list_attacks(pattern: str = "*") -> list[str]:
    """Names of registered attacks that match a shell wildcard, sorted."""
    return ATTACKS.names(pattern)


def list_defenses(pattern: str = "*") -> list[str]:
    """Names of registered defenses that match a shell wildcard, sorted."""
    return DEFENSES.names(pattern)


def list_data(pattern: str = "*") -> list[str]:
    """Names of registered data sets that match a shell wildcard, sorted; nothing is loaded."""
    return DATA.names(pattern)


def register_model(name: str, build: Callable[[], nn.Module], *, card: ModelCard | None = None) -> None:
    """Add a model under a name of its own. `build()` returns it in eval mode.

    Raises ValueError for a name that is taken: by anything but an entry point, or an earlier import of the calling file.
    """
    entry = ModelEntry(card or ModelCard(name=name, summary="registered by the user"), build)
    MODELS.register(name, entry, caller())


def register_attack(name: str, entry: AttackEntry | str) -> None:
    """Add an attack: an entry, or `"module:object"` that is imported on first use. Raises ValueError as `register_model`, and
    for what is no entry."""
    ATTACKS.register(name, entry, caller())


def register_defense(name: str, entry: DefenseEntry | str) -> None:
    """Add a defense: an entry, or `"module:object"` that is imported on first use. Raises ValueError as `register_attack`."""
    DEFENSES.register(name, entry, caller())


def register_data(name: str, entry: DataEntry | str) -> None:
    """Add a data set: an entry, or `"module:object"` that is imported on first use. Its `load` returns what a function of
    `--data` does: (images, labels), (images, labels, ids), a Dataset or a DataLoader. Raises ValueError as `register_attack`."""
    DATA.register(name, entry, caller())
