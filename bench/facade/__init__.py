"""Gauntlet: adversarial-robustness benchmarks for PyTorch image classifiers.

What is listed here is the public interface; names are imported on first use, so that `import gauntlet` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gauntlet.attacks.threat import ThreatModel
    from gauntlet.bench.api import evaluate
    from gauntlet.bench.data.sources import load_data
    from gauntlet.bench.evaluation import Evaluation
    from gauntlet.bench.models.loading import load_model
    from gauntlet.bench.registering import (
        list_attacks,
        list_data,
        list_defenses,
        list_models,
        register_attack,
        register_data,
        register_defense,
        register_model,
    )

__all__ = [
    "Evaluation",
    "ThreatModel",
    "evaluate",
    "list_attacks",
    "list_data",
    "list_defenses",
    "list_models",
    "load_data",
    "load_model",
    "register_attack",
    "register_data",
    "register_defense",
    "register_model",
]

_WHERE = {
    "Evaluation": "gauntlet.bench.evaluation",
    "ThreatModel": "gauntlet.attacks.threat",
    "evaluate": "gauntlet.bench.api",
    "load_data": "gauntlet.bench.data.sources",
    "load_model": "gauntlet.bench.models.loading",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'gauntlet' has no attribute {name!r}: it offers {', '.join(__all__)}")
    return getattr(import_module(_WHERE.get(name, "gauntlet.bench.registering")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
