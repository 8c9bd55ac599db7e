"""Which attack fits which defense: what is decided from a defense's card and from what was measured of the pipeline."""

from __future__ import annotations

from torch import nn

from gauntlet.attacks.adaptive import BENEATH, TWIN
from gauntlet.attacks.naive import Naive
from gauntlet.attacks.registry.card import AnyAttack
from gauntlet.attacks.solving.cascade import Cascade
from gauntlet.bench.checks.pipeline_profile import Profile
from gauntlet.bench.corruptions.entries import Corruption
from gauntlet.bench.planning.plan import Cell
from gauntlet.defenses.pipeline.card import DefenseCard
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.leaderboard.results.record import Flag


def ways(cell: Cell, attack: AnyAttack, defended: DefendedModel) -> dict[str, str]:
    """In which way each stage attacks."""

    def known(way: str) -> str:
        if defended.differentiable or way not in ("white-box", "eot"):
            return way
        return "bpda" if way == "white-box" else f"bpda+{way}"

    if isinstance(attack, Cascade):
        return {stage.label: known(stage.technique) for stage in attack.stages}
    if isinstance(attack, Corruption):
        return {str(severity): cell.info.attack_kind for severity in attack.severities}
    averaged = defended.randomised and getattr(attack, "eot", 1) > 1
    return {"": known("eot" if averaged else cell.info.attack_kind)}


def victim(attack: AnyAttack, defended: DefendedModel, looked: Profile | None) -> nn.Module:
    """What a whole attack is given: the naive one does not know of BPDA, and takes the twin where nothing has a gradient."""
    if not isinstance(attack, Naive):
        return defended.attack_view()
    unreached = looked is not None and looked.gradients == "none"
    return defended.twin if unreached and defended.twin is not None else defended


def views(defended: DefendedModel) -> dict[str, nn.Module]:
    """What stages of adaptive attacks may be shown in place of the pipeline, by name."""
    found = {BENEATH: defended.beneath, TWIN: defended.twin}
    return {name: view for name, view in found.items() if view is not None}


def defense_flags(card: DefenseCard, randomised: bool) -> list[Flag]:
    """What must be known of a figure behind this defense; `randomised`: declared or measured."""
    found = []
    if not card.differentiable:
        found.append(
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
        found.append(
            Flag(
                "randomised-defense",
                "block",
                f"the model answers the same image differently{hidden}: an attack that sees one draw a step aims at noise. Only "
                "attacks on the expectation over draws (EOT) say something of it",
                needs=("eot",),
            )
        )
    return found
