"""`gauntlet list`: names with a line each; models are not built, and attacks import their library only when run."""

from __future__ import annotations

import fnmatch

from gauntlet.attacks.suites import SUITES
from gauntlet.bench.registries import ATTACKS, DATA, DEFENSES, MODELS


def entries(kind: str, pattern: str) -> list[tuple[str, str]]:
    """(name, summary) of what is registered under `kind`, sorted, for a shell wildcard."""
    if kind == "suites":
        return [
            (name, "; ".join(f"{norm}: {', '.join(m.spec for m in members)}" for norm, members in norms.items()))
            for name, norms in sorted(SUITES.items())
            if fnmatch.fnmatch(name, pattern)
        ]
    if kind == "attacks":
        return [
            (name, f"{card.summary} [{', '.join(card.norms)}; {card.kind}; {card.source}]")
            for name in ATTACKS.names(pattern)
            for card in (ATTACKS.get(name).card,)
        ]
    if kind == "defenses":
        return [
            (name, f"{card.summary} [{_traits(card.differentiable, card.randomised)}; {card.source}]")
            for name in DEFENSES.names(pattern)
            for card in (DEFENSES.get(name).card,)
        ]
    if kind == "data":
        return [(name, DATA.get(name).card.summary) for name in DATA.names(pattern)]
    return [(name, MODELS.get(name).card.summary) for name in MODELS.names(pattern)]


def _traits(differentiable: bool, randomised: bool) -> str:
    return f"{'' if differentiable else 'not '}differentiable, {'randomised' if randomised else 'deterministic'}"
