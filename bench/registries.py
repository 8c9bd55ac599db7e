"""The registries of models, data, attacks and defenses: listing names, and adding one's own.

Importing this module imports neither torch nor any model, attack or data set.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from gauntlet.attacks.adapters.library_catalog import ADAPTERS as _ADAPTERS
from gauntlet.attacks.registry.card import AttackEntry
from gauntlet.attacks.registry.catalog import ATTACKS as _ATTACKS
from gauntlet.bench.data.catalog import DATA as DATA
from gauntlet.bench.executors.corruption_entries import CORRUPTIONS as CORRUPTIONS
from gauntlet.bench.executors.entry import ExecutableEntry
from gauntlet.bench.models.catalog import MODELS as MODELS
from gauntlet.bench.models.parts.card import ModelCard, ModelEntry
from gauntlet.bench.registry.entry_points import caller
from gauntlet.bench.registry.registry import Registry
from gauntlet.bench.registry.validate import adopt_attack, adopt_defense
from gauntlet.defenses.pipeline.card import DefenseEntry
from gauntlet.defenses.pipeline.catalog import DEFENSES as _DEFENSES

if TYPE_CHECKING:
    from torch import nn

    from gauntlet.attacks.ops.threat import ThreatModel
    from gauntlet.bench.data.samples.card import DataEntry
    from gauntlet.bench.executors.executable import Executable

CERTIFICATES: Registry[ExecutableEntry] = Registry("certificate")
CERTIFICATES.register("certificate", "gauntlet.bench.executors.certificate:ENTRY")
REPLAYS: Registry[ExecutableEntry] = Registry("replay")
REPLAYS.register("replay", "gauntlet.bench.executors.replay:ENTRY")
ATTACKS: Registry[AttackEntry] = Registry(
    "attack", "gauntlet.attacks", adopt_attack, reserved=(REPLAYS, CERTIFICATES, CORRUPTIONS)
)
DEFENSES: Registry[DefenseEntry] = Registry("defense", "gauntlet.defenses", adopt_defense)

for _name, _entry in {**_ATTACKS, **_ADAPTERS}.items():
    ATTACKS.register(_name, _entry)
for _name, _lazy in _DEFENSES.items():
    DEFENSES.register(_name, _lazy)


def executable_entry(name: str) -> ExecutableEntry:
    """The entry of what `--attacks` may name: an attack, a replay, a certificate or a corruption. Raises LookupError."""
    for registry in (REPLAYS, CERTIFICATES, CORRUPTIONS):
        if name in registry:
            return registry.get(name)
    entry = ATTACKS.get(name)
    return ExecutableEntry(entry.card, partial(_executable, entry))


def expand_executables(pattern: str) -> list[str]:
    """The names that `pattern` stands for: itself, or the attacks that a wildcard matches; where it matches none, others.

    Raises LookupError where nothing matches.
    """
    for registry in (CERTIFICATES, REPLAYS, CORRUPTIONS):
        if pattern in registry or (not ATTACKS.names(pattern) and registry.names(pattern)):
            return registry.expand(pattern)
    return ATTACKS.expand(pattern)


def _executable(entry: AttackEntry, threat: ThreatModel, **settings: Any) -> Executable:
    from gauntlet.bench.executors.make import executable

    return executable(entry, threat, **settings)


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
