"""Gauntlet: adversarial-robustness benchmarks for PyTorch image classifiers.

`__all__` lists the public interface. Names are imported on first use, so that `import gauntlet` takes a few milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gauntlet.attacks.ops.threat import ThreatModel
    from gauntlet.attacks.registry.card import AttackCard, AttackEntry
    from gauntlet.attacks.solving.oracle import Oracle
    from gauntlet.attacks.solving.rule import Rule
    from gauntlet.bench.api import evaluate
    from gauntlet.bench.compare.evaluations import compare
    from gauntlet.bench.data.load_data import load_data
    from gauntlet.bench.data.samples.card import DataCard, DataEntry
    from gauntlet.bench.models.load_model import load_model
    from gauntlet.bench.models.parts.card import ModelCard, ModelEntry
    from gauntlet.bench.registries import (
        list_attacks,
        list_data,
        list_defenses,
        list_models,
        register_attack,
        register_data,
        register_defense,
        register_model,
    )
    from gauntlet.bench.run.evaluation import Evaluation
    from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry

__all__ = [
    "AttackCard",
    "AttackEntry",
    "DataCard",
    "DataEntry",
    "DefenseCard",
    "DefenseEntry",
    "Evaluation",
    "ModelCard",
    "ModelEntry",
    "Oracle",
    "Rule",
    "ThreatModel",
    "compare",
    "evaluate",
    "list_attacks",
    "list_data",
    "list_defenses",
    "list_models",
    "load_data",
    "load_model",
    "ops",
    "register_attack",
    "register_data",
    "register_defense",
    "register_model",
    "testing",
]

_WHERE = {
    "AttackCard": "gauntlet.attacks.registry.card",
    "AttackEntry": "gauntlet.attacks.registry.card",
    "DataCard": "gauntlet.bench.data.samples.card",
    "DataEntry": "gauntlet.bench.data.samples.card",
    "DefenseCard": "gauntlet.defenses.pipeline.card",
    "DefenseEntry": "gauntlet.defenses.pipeline.card",
    "Evaluation": "gauntlet.bench.run.evaluation",
    "ModelCard": "gauntlet.bench.models.parts.card",
    "ModelEntry": "gauntlet.bench.models.parts.card",
    "Oracle": "gauntlet.attacks.solving.oracle",
    "Rule": "gauntlet.attacks.solving.rule",
    "ThreatModel": "gauntlet.attacks.ops.threat",
    "compare": "gauntlet.bench.compare.evaluations",
    "evaluate": "gauntlet.bench.api",
    "load_data": "gauntlet.bench.data.load_data",
    "load_model": "gauntlet.bench.models.load_model",
}
_MODULES = ("ops", "testing")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'gauntlet' has no attribute {name!r}: it offers {', '.join(__all__)}")
    if name in _MODULES:
        return import_module(f"gauntlet.{name}")
    return getattr(import_module(_WHERE.get(name, "gauntlet.bench.registries")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
