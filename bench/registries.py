"""The registries of attacks and defenses, beside those of models and data; listing them imports nothing heavy."""

from __future__ import annotations

from gauntlet.attacks.card import AttackEntry
from gauntlet.attacks.catalog import ATTACKS as _ATTACKS
from gauntlet.bench.data.catalog import DATA
from gauntlet.bench.models.catalog import MODELS
from gauntlet.bench.registry import Registry
from gauntlet.defenses.card import DefenseEntry
from gauntlet.defenses.catalog import DEFENSES as _DEFENSES

__all__ = ["ATTACKS", "DATA", "DEFENSES", "MODELS"]

ATTACKS: Registry[AttackEntry] = Registry("attack")
DEFENSES: Registry[DefenseEntry] = Registry("defense")

for _name, _entry in _ATTACKS.items():
    ATTACKS.register(_name, _entry)
# These need results that are stored, or proofs.
ATTACKS.register("replay", "gauntlet.bench.replay:ENTRY")
ATTACKS.register("certificate", "gauntlet.bench.certifying:ENTRY")
for _name, _lazy in _DEFENSES.items():
    DEFENSES.register(_name, _lazy)
