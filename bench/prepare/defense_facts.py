"""What follows from a defense: the views that attacks may use, and flags that every figure behind it carries."""

from __future__ import annotations

from torch import nn

from gauntlet.attacks.adaptive import BENEATH, TWIN
from gauntlet.defenses.pipeline.card import DefenseCard
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.leaderboard.results.record import Flag


def attack_views(pipeline: DefendedModel) -> dict[str, nn.Module]:
    """Modules that stages of adaptive attacks may receive in place of the pipeline, by name."""
    views = {BENEATH: pipeline.beneath, TWIN: pipeline.twin}
    return {name: view for name, view in views.items() if view is not None}


def defense_flags(card: DefenseCard, randomised: bool) -> list[Flag]:
    """Flags of a figure behind this defense; `randomised`: declared or measured."""
    flags = []
    if not card.differentiable:
        flags.append(
            Flag(
                "non-differentiable-defense",
                "block",
                "autograd gives no useful gradient through the defense: an attack that takes its word finds nothing. Only "
                "attacks by BPDA, by transfer and without gradients say something of it",
                needs=("bpda", "transfer", "black-box"),
            )
        )
    if randomised:
        hidden = "" if card.randomised else ", though nothing was declared"
        flags.append(
            Flag(
                "randomised-defense",
                "block",
                f"the model answers the same image differently{hidden}: an attack that sees one draw a step aims at noise. Only "
                "attacks on the expectation over draws (EOT) say something of it",
                needs=("eot",),
            )
        )
    return flags


_SAME = {
    "non-differentiable-defense": {"unavailable-gradients", "zero-gradient", "finite-differences"},
    "randomised-defense": {"randomised-model"},
}
"""Flags of declared defenses, each with the checks that find just that."""


def merge_flags(declared: tuple[Flag, ...], measured: tuple[Flag, ...]) -> tuple[Flag, ...]:
    """Declared flags, and those of checks that say something else; of two flags with one name the check's, with evidence."""
    names = {flag.name for flag in measured}
    covered = set[str]().union(*(_SAME.get(flag.name, set()) for flag in declared))
    return (
        *(flag for flag in declared if flag.name not in names),
        *(flag for flag in measured if flag.name not in covered),
    )
