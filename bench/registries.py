"""The registries of attacks and defenses, beside those of models and data; listing them imports nothing heavy."""

from __future__ import annotations

from gauntlet.attacks.adapters.library_catalog import ADAPTERS as _ADAPTERS
from gauntlet.attacks.registry.card import AttackEntry
from gauntlet.attacks.registry.catalog import ATTACKS as _ATTACKS
from gauntlet.bench.adopting import adopt_attack, adopt_defense
from gauntlet.bench.corruptions.catalog import KINDS as _CORRUPTIONS
from gauntlet.bench.corruptions.entries import PREFIX as _PREFIX
from gauntlet.bench.corruptions.entries import entry as _corruption
from gauntlet.bench.data.catalog import DATA
from gauntlet.bench.models.catalog import MODELS
from gauntlet.bench.registry import Registry
from gauntlet.defenses.pipeline.card import DefenseEntry
from gauntlet.defenses.pipeline.catalog import DEFENSES as _DEFENSES

__all__ = ["ATTACKS", "DATA", "DEFENSES", "MODELS"]

ATTACKS: Registry[AttackEntry] = Registry("attack", "gauntlet.attacks", adopt_attack)
DEFENSES: Registry[DefenseEntry] = Registry("defense", "gauntlet.defenses", adopt_defense)

for _name, _entry in {**_ATTACKS, **_ADAPTERS}.items():
    ATTACKS.register(_name, _entry)
# These need results that are stored, or proofs.
ATTACKS.register("replay", "gauntlet.bench.replay:ENTRY")
ATTACKS.register("certificate", "gauntlet.bench.certifying:ENTRY")
# No attacks, but cells like theirs.
for _name in _CORRUPTIONS:
    ATTACKS.register(f"{_PREFIX}{_name}", _corruption(_name))
for _name, _lazy in _DEFENSES.items():
    DEFENSES.register(_name, _lazy)
