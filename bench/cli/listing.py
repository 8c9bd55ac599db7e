"""`gauntlet list`: names with a line each; models are not built, and attacks import their library only when run."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

from gauntlet.attacks.registry.suites import SUITES
from gauntlet.bench.registries import ATTACKS, DATA, DEFENSES, MODELS
from gauntlet.bench.registry.registry import Registry

_REGISTRIES: Mapping[str, Registry[Any]] = {"models": MODELS, "attacks": ATTACKS, "defenses": DEFENSES, "data": DATA}


def entries(kind: str, pattern: str) -> list[tuple[str, str]]:
    """(name, summary) of what is registered under `kind`, sorted, for a shell wildcard; what is installed is loaded."""
    if kind == "suites":
        return [
            (name, "; ".join(f"{norm}: {', '.join(m.spec for m in members)}" for norm, members in norms.items()))
            for name, norms in sorted(SUITES.items())
            if fnmatch.fnmatch(name, pattern)
        ]
    registry = _REGISTRIES[kind]
    registry.load_offers()
    return [
        (name, _summary(kind, registry.get(name).card) + _from(registry.origin(name)))
        for name in registry.names(pattern)
    ]


def problems(kind: str) -> tuple[str, ...]:
    """A sentence for whatever is installed, offers something of that kind, and cannot be used."""
    return _REGISTRIES[kind].problems if kind in _REGISTRIES else ()


def _summary(kind: str, card: Any) -> str:
    told = card.summary
    if kind == "attacks":
        told += f" [{', '.join(card.norms)}; {card.kind}; {card.source}]"
    if kind == "defenses":
        traits = f"{'' if card.differentiable else 'not '}differentiable"
        told += f" [{traits}, {'randomised' if card.randomised else 'deterministic'}; {card.source}]"
    return str(told)


def _from(origin: str) -> str:
    return f" (from {origin})" if origin else ""
