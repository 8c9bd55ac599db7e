"""AutoAttack: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse attacks", ICML 2020."""

from __future__ import annotations

from gauntlet.attacks.apgd import APGD
from gauntlet.attacks.card import AttackCard, AttackEntry
from gauntlet.attacks.cascade import Cascade
from gauntlet.attacks.fab import FAB
from gauntlet.attacks.rule import whole
from gauntlet.attacks.solver import Stage
from gauntlet.attacks.square import Square
from gauntlet.attacks.threat import ThreatModel

VERSIONS = ("standard", "rand")


def build(threat: ThreatModel, *, version: str = "standard", steps: int = 100, queries: int = 5000) -> Cascade:
    """The standard ensemble: APGD-CE, APGD-T and FAB-T with 9 targets, Square, each on what the others left standing.

    `version="rand"`, for randomised models: APGD-CE and APGD-DLR on the mean gradient over 20 draws. `steps` and `queries`
    are the authors' by default; other values are no longer AutoAttack. Departures of the stages are in their docstrings;
    the random numbers are ours, so figures agree with the official ones within their spread over seeds.
    """
    whole("steps", steps, 1)
    whole("queries", queries, 1)
    if version not in VERSIONS:
        raise ValueError(f"version={version!r} is not known: use one of {', '.join(VERSIONS)}")
    if version == "rand":
        return Cascade(
            (
                Stage("apgd-ce", APGD(steps=steps, eot=20)),
                Stage("apgd-dlr", APGD(steps=steps, loss="dlr", eot=20)),
            )
        )
    return Cascade(
        (
            Stage("apgd-ce", APGD(steps=steps)),
            Stage("apgd-t", APGD(steps=steps, loss="dlr-targeted")),
            Stage("fab-t", FAB(steps=steps, stop_inside=True)),
            Stage("square", Square(queries=queries)),
        )
    )


ENTRY = AttackEntry(
    AttackCard(
        name="autoattack",
        summary="the standard ensemble: APGD-CE, APGD-T, FAB-T, Square",
        source="Croce and Hein 2020, arXiv 2003.01690; fra31/auto-attack",
        norms=("Linf", "L2"),
    ),
    build,
)
