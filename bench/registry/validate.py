"""Validation of registered entries from outside Gauntlet: type, name and settings; also adds the digest of their code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, get_args

from gauntlet.attacks.ops.threat import NORMS, ThreatModel
from gauntlet.attacks.registry.card import AttackEntry
from gauntlet.bench.registry.source_digest import code_digest
from gauntlet.defenses.pipeline.card import DefenseEntry, DefenseKind

E = TypeVar("E")

_ATTACK_KINDS = ("white-box", "black-box", "decision-based", "transfer", "naive")
"""Kinds of attacks that search for adversarial examples; other kinds are not built from attack entries."""


def checked(kind: type[E], name: str, entry: E) -> E:
    """The entry, after a check of its type. Raises ValueError."""
    if not isinstance(entry, kind):
        raise ValueError(f"{name!r} is a {type(entry).__name__}: give {kind.__name__}(card, …), or its 'module:object'")
    return entry


def adopt_attack(name: str, entry: AttackEntry) -> AttackEntry:
    """The attack under its registered name, with the digest of its code. Gauntlet's own attacks are returned unchanged."""
    digest = code_digest(checked(AttackEntry, name, entry).build)
    if not digest:
        return entry
    card = replace(entry.card, name=name, role="attack")
    _one_of(f"attack {name!r} has kind", card.kind, _ATTACK_KINDS)
    for norm in card.norms:
        _one_of(f"attack {name!r} has among its norms", norm, NORMS)
    return replace(entry, card=card, build=partial(_made_attack, name, entry.build), source_digest=digest)


def adopt_defense(name: str, entry: DefenseEntry) -> DefenseEntry:
    """The defense under its registered name, with the digest of its code. Gauntlet's own defenses are returned unchanged."""
    builders = [build for build in (checked(DefenseEntry, name, entry).build, entry.substitute) if build is not None]
    digest = code_digest(*builders)
    if not digest:
        return entry
    _one_of(f"defense {name!r} has kind", entry.card.kind, get_args(DefenseKind))
    substitute = entry.substitute and partial(_made_defense, name, "input", entry.substitute)
    return replace(
        entry,
        card=replace(entry.card, name=name),
        build=partial(_made_defense, name, entry.card.kind, entry.build),
        substitute=substitute,
        source_digest=digest,
    )


def _made_attack(name: str, build: Callable[..., Any], threat: ThreatModel, **settings: Any) -> Any:
    made = _called(f"attack {name!r}", build, threat, **settings)
    version = getattr(made, "version", None)
    if not isinstance(version, int):
        raise ValueError(
            f"attack {name!r} has version {version!r}: give its class an integer `version`, and raise it when the output changes"
        )
    if not callable(made):
        from gauntlet.attacks.solving.cascade import Cascade
        from gauntlet.attacks.solving.rule import Rule

        if not isinstance(made, Rule | Cascade):
            raise ValueError(
                f"attack {name!r} is a {type(made).__name__}: write __call__(self, model, images, labels, seed), or a Rule"
            )
    return made


def _made_defense(name: str, kind: str, build: Callable[..., Any], **settings: Any) -> Any:
    made = _called(f"defense {name!r}", build, **settings)
    if kind != "model":
        from torch import nn

        if not isinstance(made, nn.Module):
            raise ValueError(f"defense {name!r} is a {type(made).__name__}: build a torch.nn.Module")
    elif not callable(made):
        raise ValueError(f"defense {name!r} is a {type(made).__name__}: build a function from model to model")
    return made


def _called(entry: str, build: Callable[..., Any], *given: Any, **settings: Any) -> Any:
    try:
        return build(*given, **settings)
    except (TypeError, ValueError, LookupError):  # for unknown or invalid settings
        raise
    except Exception as error:
        raise ValueError(f"{entry} cannot be built: {type(error).__name__}: {error}") from error


def _one_of(subject: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{subject} {value!r}: use {', '.join(choices)}")
