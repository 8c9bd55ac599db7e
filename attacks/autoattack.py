"""AutoAttack: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse attacks", ICML 2020."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gauntlet.attacks.apgd import APGD
from gauntlet.attacks.apgd_l1 import APGDL1
from gauntlet.attacks.fab import FAB
from gauntlet.attacks.ops.threat import Norm, ThreatModel
from gauntlet.attacks.ops.validators import one_of, whole_number
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.solving.cascade import Cascade
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.solver import Stage
from gauntlet.attacks.square import Square

VERSIONS = ("standard", "rand")


def build(threat: ThreatModel, *, version: str = "standard", steps: int = 100, queries: int = 5000) -> Cascade:
    """The standard ensemble: APGD-CE, APGD-T and FAB-T with 9 targets, Square, each on the samples that are left.

    `version="rand"`, for randomised models: APGD-CE and APGD-DLR with the mean gradient over 20 draws. `steps` and `queries` have
    the authors' values by default; with other values it is not AutoAttack. In L1 (Croce and Hein, "Mind the box", ICML 2021),
    as in their code: L1-APGD with three radii, from 5 starts and towards 5 targets, and one radius with `rand`. The docstrings
    of the stages list departures. Random numbers differ from the official code, so figures agree within the spread over seeds.
    """
    whole_number("steps", steps, 1)
    whole_number("queries", queries, 1)
    one_of("version", version, VERSIONS)
    first, second = _ascents(threat.norm, version, steps)
    if version == "rand":
        return Cascade((Stage("apgd-ce", first, technique="eot"), Stage("apgd-dlr", second, technique="eot")))
    return Cascade(
        (
            Stage("apgd-ce", first),
            Stage("apgd-t", second),
            Stage("fab-t", FAB(steps=steps, stop_inside=True)),
            Stage("square", Square(queries=queries), technique="black-box"),
        )
    )


def _ascents(norm: Norm, version: str, steps: int) -> tuple[Rule[Any], Rule[Any]]:
    if norm == "L1":
        if version == "rand":
            first = APGDL1(steps=steps, eot=20, multi_eps=False)
            return first, replace(first, loss="dlr")
        return APGDL1(steps=steps, restarts=5), APGDL1(steps=steps, loss="dlr_targeted", targets=5)
    if version == "rand":
        return APGD(steps=steps, eot=20), APGD(steps=steps, loss="dlr", eot=20)
    return APGD(steps=steps), APGD(steps=steps, loss="dlr_targeted")


ENTRY = AttackEntry(
    AttackCard(
        name="autoattack",
        summary="the standard ensemble: APGD-CE, APGD-T, FAB-T, Square",
        source="Croce and Hein 2020, arXiv 2003.01690; fra31/auto-attack",
        norms=("Linf", "L2", "L1"),
    ),
    build,
)
